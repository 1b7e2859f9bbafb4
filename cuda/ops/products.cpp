// Products of a whole data set's codes with float vectors on CUDA.
#include "code_memory.h"
#include "kernels/linear/code_matrix.h"
#include "ops/codes.h"
#include "ops/matrix.h"

namespace torchext::ops {
namespace {

/// The codes of an op, aligned for the length of it.
struct Codes {
  AlignedBytes codes, table;
  cuda::CodeMatrix matrix;

  Codes(const char* op, const Device& device, const Tensor& all, int64_t rows, int64_t cols,
        int64_t bits, const Tensor& grid, const Tensor& levels)
      : codes(all), table(levels), matrix{} {
    check_all(device, op, {{"grid", &grid}, {"table", &levels}});
    const cpu::Epoch p = read_code_matrix(op, all, rows, cols, bits, grid, levels);
    matrix = {{codes.data, false, p.table != nullptr ? table.data : nullptr,
               (rows + kTileRows - 1) / kTileRows, cols, p.data.bits, p.planes, 1},
              p.grid,
              rows};
  }
};

int read_digits(const char* op, int64_t digits) {
  return static_cast<int>(check_range(op, "digits", digits, 1, 2));
}

int read_outputs(const char* op, const Device& device, const char* name, const Tensor& t,
                 ScalarType type, int64_t cols) {
  device.check(op, name, t);
  check_dtype(op, name, t, type);
  return static_cast<int>(
      check_range(op, "outputs", check_outputs(op, name, t, cols), 1, kMostOutputs));
}

Tensor code_dot_cuda(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits,
                     const Tensor& grid, const Tensor& table, Tensor x, int64_t digits) {
  constexpr const char* op = "_code_dot";
  const Device device(codes);
  const Codes data(op, device, codes, rows, cols, bits, grid, table);
  const int count = read_digits(op, digits),
            m = read_outputs(op, device, "x", x, ScalarType::Double, cols);
  Tensor z = torch::stable::new_empty(x, {m, rows}, ScalarType::Float);
  const cuda::CodeDot p{data.matrix, m, count, x.mutable_data_ptr<double>(),
                        z.mutable_data_ptr<float>()};
  Tensor memory = workspace_of(x, cuda::code_dot_workspace(p));
  check_launch(op, cuda::launch_code_dot(p, memory.mutable_data_ptr(), device.stream()));
  return z;
}

Tensor code_sum_cuda(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits,
                     const Tensor& grid, const Tensor& table, const Tensor& e, int64_t digits) {
  constexpr const char* op = "_code_sum";
  const Device device(codes);
  const Codes data(op, device, codes, rows, cols, bits, grid, table);
  const int count = read_digits(op, digits),
            m = read_outputs(op, device, "e", e, ScalarType::Float, rows);
  Tensor g = torch::stable::new_empty(e, {m, cols}, ScalarType::Double);
  const cuda::CodeSum p{data.matrix, m, count, e.const_data_ptr<float>(),
                        g.mutable_data_ptr<double>()};
  Tensor memory = workspace_of(e, cuda::code_sum_workspace(p));
  check_launch(op, cuda::launch_code_sum(p, memory.mutable_data_ptr(), device.stream()));
  return g;
}

Tensor code_gram_cuda(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits,
                      const Tensor& grid, const Tensor& table, Tensor x,
                      const std::optional<Tensor>& offset, const std::optional<Tensor>& shift,
                      const std::optional<Tensor>& weight, int64_t digits) {
  constexpr const char* op = "_code_gram";
  const Device device(codes);
  const Codes data(op, device, codes, rows, cols, bits, grid, table);
  const int count = read_digits(op, digits),
            m = read_outputs(op, device, "x", x, ScalarType::Double, cols);
  check_all(device, op,
            {{"offset", given(offset)}, {"shift", given(shift)}, {"weight", given(weight)}});
  const double *add = nullptr, *by = nullptr;
  const float* v = nullptr;
  if (offset) add = read_array<double>(op, "offset", *offset, ScalarType::Double, {m});
  if (shift) by = read_array<double>(op, "shift", *shift, ScalarType::Double, {cols});
  if (weight) v = read_array<float>(op, "weight", *weight, ScalarType::Float, {rows});
  Tensor g = torch::stable::new_empty(x, {m, cols + 1}, ScalarType::Double);
  const cuda::CodeGram p{data.matrix, m,  count, x.mutable_data_ptr<double>(),
                         add,         by, v,     g.mutable_data_ptr<double>()};
  Tensor memory = workspace_of(x, cuda::code_gram_workspace(p));
  check_launch(op, cuda::launch_code_gram(p, memory.mutable_data_ptr(), device.stream()));
  return g;
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("_code_dot", TORCH_BOX(&torchext::ops::code_dot_cuda));
  m.impl("_code_gram", TORCH_BOX(&torchext::ops::code_gram_cuda));
  m.impl("_code_sum", TORCH_BOX(&torchext::ops::code_sum_cuda));
}
