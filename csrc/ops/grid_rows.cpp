// Rows on one grid for all columns, for the solvers that move on integers.
#include "kernels/linear/grid_rows.h"

#include "matrix.h"

namespace torchext::ops {
namespace {

cpu::GridCode read_code(const char* op, const Tensor& codes) {
  switch (codes.scalar_type()) {
    case ScalarType::Char: return cpu::GridCode::i8;
    case ScalarType::Short: return cpu::GridCode::i16;
    default: check_dtype(op, "codes", codes, ScalarType::Float); return cpu::GridCode::f32;
  }
}

void grid_rows(const Tensor& x, const Tensor& mean, const Tensor& inverse, double top, Tensor codes,
               Tensor squares) {
  constexpr const char* op = "_grid_rows";
  const Matrix m = read_matrix(op, x);
  const cpu::GridCode kind = read_code(op, codes);
  TX_CHECK(codes.dim() == 2 && codes.size(0) == m.rows && codes.size(1) >= m.cols, op,
           "codes must have shape (", m.rows, ", at least ", m.cols, "), got ", shape_text(codes));
  TX_CHECK(codes.size(1) <= 1 || codes.stride(1) == 1, op,
           "codes must have adjacent elements in a row, got stride ", codes.stride(1));
  const double most = kind == cpu::GridCode::i8 ? 127 : 32767;
  const bool plain = kind == cpu::GridCode::f32 && top == 0;
  TX_CHECK(plain || (top >= 1 && top <= most), op, "top must be in [1, ", most, "], got ", top);
  const cpu::GridRows p{m.data,
                        m.f64,
                        m.row_stride,
                        m.cols,
                        read_array<double>(op, "mean", mean, ScalarType::Double, {m.cols}),
                        read_array<double>(op, "inverse", inverse, ScalarType::Double, {m.cols}),
                        top,
                        codes.mutable_data_ptr(),
                        kind,
                        codes.stride(0),
                        write_array<double>(op, "squares", squares, ScalarType::Double, {m.rows})};
  auto* const kernel = cpu::grid_rows_kernel();
  parallel_for(m.rows, 64, [&](int64_t b, int64_t e) { kernel(p, b, e); });
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_grid_rows", TORCH_BOX(&torchext::ops::grid_rows));
}
