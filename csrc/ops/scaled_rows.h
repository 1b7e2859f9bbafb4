// Arguments of the ops that bring rows to the units of a solver; the CPU and CUDA ops share the
// checks.
#pragma once

#include "kernels/linear/grid_rows.h"
#include "kernels/scale_rows.h"
#include "matrix.h"

namespace torchext::ops {

inline cpu::GridCode read_code(const char* op, const Tensor& codes) {
  switch (codes.scalar_type()) {
    case ScalarType::Char: return cpu::GridCode::i8;
    case ScalarType::Short: return cpu::GridCode::i16;
    default: check_dtype(op, "codes", codes, ScalarType::Float); return cpu::GridCode::f32;
  }
}

inline cpu::GridRows read_grid_rows(const char* op, const Matrix& m, const Tensor& mean,
                                    const Tensor& inverse, double top, const Tensor& codes,
                                    const Tensor& squares) {
  const cpu::GridCode kind = read_code(op, codes);
  TX_CHECK(codes.dim() == 2 && codes.size(0) == m.rows && codes.size(1) >= m.cols, op,
           "codes must have shape (", m.rows, ", at least ", m.cols, "), got ", shape_text(codes));
  TX_CHECK(codes.size(1) <= 1 || codes.stride(1) == 1, op,
           "codes must have adjacent elements in a row, got stride ", codes.stride(1));
  const double most = kind == cpu::GridCode::i8 ? 127 : 32767;
  const bool plain = kind == cpu::GridCode::f32 && top == 0;
  TX_CHECK(plain || (top >= 1 && top <= most), op, "top must be in [1, ", most, "], got ", top);
  return cpu::GridRows{m.data,
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
}

/// The index is not checked: it may be in the memory of a GPU.
inline cpu::ScaleRows read_scale_rows(const char* op, const Matrix& m,
                                      const std::optional<Tensor>& rows, const Tensor& mean,
                                      const Tensor& scale, const Tensor& out) {
  const int64_t count = rows.has_value() ? rows->numel() : m.rows;
  const int64_t* index = nullptr;
  if (rows.has_value()) index = read_array<int64_t>(op, "rows", *rows, ScalarType::Long, {count});
  return cpu::ScaleRows{m.data,
                        m.f64,
                        m.row_stride,
                        index,
                        m.cols,
                        read_array<double>(op, "mean", mean, ScalarType::Double, {m.cols}),
                        read_array<double>(op, "scale", scale, ScalarType::Double, {m.cols}),
                        write_array<float>(op, "out", out, ScalarType::Float, {count, m.cols})};
}

}  // namespace torchext::ops
