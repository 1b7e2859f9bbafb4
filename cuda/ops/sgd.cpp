// Mini-batch SGD over codes and their decoding on CUDA.
#include "code_memory.h"
#include "kernels/linear/sgd_epoch.h"
#include "ops/sgd_args.h"

namespace torchext::ops {
namespace {

cuda::EpochStep to_step(const cpu::Epoch& p, const Tensor& key) {
  cuda::EpochStep s{};
  s.rows = p.data.rows;
  s.cols = p.data.cols;
  s.batch = p.batch;
  s.outputs = p.outputs;
  s.planes = p.planes;
  s.books = p.books;
  s.grid = p.grid;
  s.y = p.y;
  s.weight = p.weight;
  s.z0 = p.z0;
  s.x = p.x;
  s.intercept = p.intercept;
  s.x0 = p.x0;
  s.constant = p.constant;
  s.shrink = p.shrink;
  s.x0_cols = p.x0_cols;
  s.constant_cols = p.constant_cols;
  s.average = p.average;
  s.order = p.order;
  s.gamma = p.gamma;
  s.key = static_cast<const uint64_t*>(key.const_data_ptr());
  s.steps = p.steps;
  s.first_step = p.first_step;
  s.logistic = p.loss == cpu::Loss::log_loss;
  s.variance_reduced = p.variance_reduced;
  s.fit_intercept = p.fit_intercept;
  s.l1 = p.l1;
  s.l2 = p.l2;
  s.model_bits = p.model_bits;
  s.residual_bits = p.residual_bits;
  s.gradient_bits = p.gradient_bits;
  s.dense = p.dense;
  return s;
}

Tensor sgd_epoch_cuda(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits,
                      std::string layout, const Tensor& grid, const Tensor& table,
                      std::optional<Tensor> y, std::optional<Tensor> weight,
                      std::optional<Tensor> z0, Tensor x, Tensor intercept,
                      std::optional<Tensor> x0, std::optional<Tensor> constant,
                      std::optional<Tensor> shrink, std::optional<Tensor> average,
                      const Tensor& order, const Tensor& gamma, int64_t batch, std::string loss,
                      double l1, double l2, bool variance_reduced, bool fit_intercept,
                      int64_t model_bits, int64_t residual_bits, int64_t gradient_bits,
                      const Tensor& key, int64_t first_step, int64_t threads) {
  constexpr const char* op = "_sgd_epoch";
  const Device device(codes);
  check_all(device, op,
            {{"grid", &grid},
             {"table", &table},
             {"y", given(y)},
             {"weight", given(weight)},
             {"z0", given(z0)},
             {"x", &x},
             {"intercept", &intercept},
             {"x0", given(x0)},
             {"constant", given(constant)},
             {"shrink", given(shrink)},
             {"average", given(average)},
             {"order", &order},
             {"gamma", &gamma},
             {"key", &key}});
  const cpu::Epoch p =
      read_epoch(op, codes, rows, cols, bits, layout, grid, table, y, weight, z0, x, intercept, x0,
                 constant, shrink, average, order, gamma, batch, loss, l1, l2, variance_reduced,
                 fit_intercept, model_bits, residual_bits, gradient_bits, key, first_step, threads);
  check_range(op, "outputs", p.outputs, 1, kMostOutputs);
  cuda::EpochStep step = to_step(p, key);
  Tensor sums = torch::stable::new_empty(x, {3, p.outputs}, ScalarType::Double);
  step.sums = sums.mutable_data_ptr<double>();
  cuda::EpochData data{nullptr, nullptr, p.data.bits};
  std::optional<AlignedBytes> tiles, levels;
  if (p.codes != nullptr) {
    tiles = tile4_codes(op, codes, p.data, device.stream());
    data.codes = tiles->data;
  }
  if (p.table != nullptr) {
    levels = AlignedBytes(table);
    data.table = levels->data;
  }
  Tensor memory = workspace_of(x, cuda::epoch_workspace(data, step));
  check_launch(op, cuda::launch_epoch(data, step, memory.mutable_data_ptr(), device.stream()));
  return sums;
}

Tensor sgd_decode_cuda(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits,
                       std::string layout, const Tensor& grid, const Tensor& table,
                       const Tensor& row_index, int64_t draw) {
  constexpr const char* op = "_sgd_decode";
  const Device device(codes);
  check_all(device, op, {{"grid", &grid}, {"table", &table}, {"row_index", &row_index}});
  cpu::Epoch p{};
  read_codes(op, p, codes, rows, cols, bits, layout, grid, table);
  check_range(op, "draw", draw, 0, p.books - 1);
  const int64_t count = read_row_index(op, row_index);
  Tensor out = torch::stable::new_empty(codes, {count, cols}, ScalarType::Float);
  const cuda::RowChoice choice{row_index.const_data_ptr<int64_t>(), nullptr, 0, count, rows};
  const cuda::DecodeParams decode{choice,
                                  p.data,
                                  p.codes,
                                  p.dense,
                                  (cols + 15) / 16 * 16,
                                  p.grid,
                                  p.table,
                                  p.planes,
                                  p.books,
                                  static_cast<int>(draw),
                                  out.mutable_data_ptr<float>(),
                                  cols};
  check_launch(op, cuda::launch_decode_rows(decode, device.stream()));
  return out;
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("_sgd_decode", TORCH_BOX(&torchext::ops::sgd_decode_cuda));
  m.impl("_sgd_epoch", TORCH_BOX(&torchext::ops::sgd_epoch_cuda));
}
