// Mini-batch SGD over the codes of a data set, and their decoding.
#include "sgd_args.h"

namespace torchext::ops {

namespace {

Tensor sgd_epoch(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits, std::string layout,
                 const Tensor& grid, const Tensor& table, std::optional<Tensor> y,
                 std::optional<Tensor> weight, std::optional<Tensor> z0, Tensor x, Tensor intercept,
                 std::optional<Tensor> x0, std::optional<Tensor> constant,
                 std::optional<Tensor> shrink, std::optional<Tensor> average, const Tensor& order,
                 const Tensor& gamma, int64_t batch, std::string loss, double l1, double l2,
                 bool variance_reduced, bool fit_intercept, int64_t model_bits,
                 int64_t residual_bits, int64_t gradient_bits, const Tensor& key,
                 int64_t first_step, int64_t threads) {
  constexpr const char* op = "_sgd_epoch";
  cpu::Epoch p =
      read_epoch(op, codes, rows, cols, bits, layout, grid, table, y, weight, z0, x, intercept, x0,
                 constant, shrink, average, order, gamma, batch, loss, l1, l2, variance_reduced,
                 fit_intercept, model_bits, residual_bits, gradient_bits, key, first_step, threads);
  const int64_t batches = (rows + batch - 1) / batch;
  for (int64_t i = 0; i < p.steps; ++i) check_range(op, "order", p.order[i], 0, batches - 1);
  p.key = read_key(op, key);
  Tensor sums = torch::stable::new_empty(x, {3, p.outputs}, ScalarType::Double);
  p.sums = sums.mutable_data_ptr<double>();
  cpu::sgd_epoch(p);
  return sums;
}

Tensor sgd_decode(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits, std::string layout,
                  const Tensor& grid, const Tensor& table, const Tensor& row_index, int64_t draw) {
  constexpr const char* op = "_sgd_decode";
  cpu::Epoch p{};
  read_codes(op, p, codes, rows, cols, bits, layout, grid, table);
  check_range(op, "draw", draw, 0, p.books - 1);
  const int64_t count = read_row_index(op, row_index);
  const auto* index = row_index.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) check_range(op, "row_index", index[i], 0, rows - 1);
  Tensor out = torch::stable::new_empty(codes, {count, cols}, ScalarType::Float);
  float* to = out.mutable_data_ptr<float>();
  parallel_for(count, 64, [&](int64_t b, int64_t e) {
    cpu::sgd_decode(p, index + b, 0, e - b, static_cast<int>(draw), to + b * cols, cols);
  });
  return out;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_sgd_decode", TORCH_BOX(&torchext::ops::sgd_decode));
  m.impl("_sgd_epoch", TORCH_BOX(&torchext::ops::sgd_epoch));
}
