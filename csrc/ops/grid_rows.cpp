// Rows on one grid for all columns, for the solvers that move on integers.
#include "scaled_rows.h"

namespace torchext::ops {
namespace {

void grid_rows(const Tensor& x, const Tensor& mean, const Tensor& inverse, double top, Tensor codes,
               Tensor squares) {
  constexpr const char* op = "_grid_rows";
  const Matrix m = read_matrix(op, x);
  const cpu::GridRows p = read_grid_rows(op, m, mean, inverse, top, codes, squares);
  auto* const kernel = cpu::grid_rows_kernel();
  parallel_for(m.rows, 64, [&](int64_t b, int64_t e) { kernel(p, b, e); });
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_grid_rows", TORCH_BOX(&torchext::ops::grid_rows));
}
