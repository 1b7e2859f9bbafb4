// Rows in the units of a solver, on CUDA.
#include "ops/scaled_rows.h"

#include "device.h"
#include "kernels/scaled_rows.h"

namespace torchext::ops {
namespace {

void grid_rows_cuda(const Tensor& x, const Tensor& mean, const Tensor& inverse, double top,
                    Tensor codes, Tensor squares) {
  constexpr const char* op = "_grid_rows";
  const Device device(x);
  device.check(op, "mean", mean);
  device.check(op, "inverse", inverse);
  device.check(op, "codes", codes);
  device.check(op, "squares", squares);
  const Matrix m = read_matrix(op, x);
  const cpu::GridRows p = read_grid_rows(op, m, mean, inverse, top, codes, squares);
  check_launch(op, cuda::launch_grid_rows(p, m.rows, device.stream()));
}

void scale_rows_cuda(const Tensor& x, const std::optional<Tensor>& rows, const Tensor& mean,
                     const Tensor& scale, Tensor out) {
  constexpr const char* op = "_scale_rows";
  const Device device(x);
  if (rows.has_value()) device.check(op, "rows", *rows);
  device.check(op, "mean", mean);
  device.check(op, "scale", scale);
  device.check(op, "out", out);
  const Matrix m = read_matrix(op, x);
  const cpu::ScaleRows p = read_scale_rows(op, m, rows, mean, scale, out);
  check_launch(op, cuda::launch_scale_rows(p, out.size(0), m.rows, device.stream()));
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("_grid_rows", TORCH_BOX(&torchext::ops::grid_rows_cuda));
  m.impl("_scale_rows", TORCH_BOX(&torchext::ops::scale_rows_cuda));
}
