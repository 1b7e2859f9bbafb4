// Rows as codes on one grid for all columns: u = clamp(rint((x - mean) * inverse), -top, top), in
// double, ties to even. inverse is 1 / (scale of the column * spacing of the grid). Without a grid
// (top = 0, float32 only) u = fl32((x - mean) * inverse).
#pragma once

#include <cstdint>

namespace torchext::cpu {

enum class GridCode : int { i8, i16, f32 };

struct GridRows {
  const void* x;
  bool f64;
  int64_t row_stride;  // elements
  int64_t cols;
  const double *mean, *inverse;  // [cols]
  double top;                    // at most 32767, or 0
  void* codes;                   // row k starts k*pitch elements in
  GridCode kind;
  int64_t pitch;
  double* squares;  // [rows] sum of u^2 of every row; exact, or in eight sums of columns j mod 8
};

/// Rows [begin, end), all values finite.
using GridRowsFn = void(const GridRows& p, int64_t begin, int64_t end) noexcept;

GridRowsFn grid_rows_ref, grid_rows_avx2, grid_rows_avx512;

/// The variant of the instruction set in use.
GridRowsFn* grid_rows_kernel() noexcept;

}  // namespace torchext::cpu
