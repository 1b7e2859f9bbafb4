// First pass over a data set: sums, minimum and maximum of every column, and whether all is finite.
#pragma once

#include <cstdint>

#include "philox.h"

namespace torchext::cpu {

constexpr int64_t kStatsChunk = 1024;  // rows summed in order before they join the running sum

/// A block of row-major values; `row_stride` counts elements.
struct ColumnBlock {
  const void* x;
  bool f64;
  int64_t row_stride;
};

/// For the columns [begin, end) of rows [row, row + rows), rows <= 1024: adds every value, in row
/// order and in double, to sum[col] (the caller starts a chunk at +0.0), and widens lo[col] ..
/// hi[col]. A NaN or an infinity makes sum[col] non-finite; lo and hi mean nothing then.
using ColumnStatsFn = void(const ColumnBlock& block, int64_t row, int64_t rows, int64_t begin,
                           int64_t end, double* sum, double* lo, double* hi) noexcept;

ColumnStatsFn column_stats_ref, column_stats_avx2, column_stats_avx512;

/// A weighted sum adds, in double, term(v, x, j) for the value x of column j in a row of weight v.
struct Weighing {
  const double* weight;  // [rows], or null: 1
  const double* centre;  // [cols], or null: x itself is summed, not its squared distance from here

  TX_HD_MEMBER bool wanted() const { return weight != nullptr || centre != nullptr; }
  TX_HD_MEMBER double of_row(int64_t r) const { return weight != nullptr ? weight[r] : 1.0; }
  TX_HD_MEMBER double term(double v, double x, int64_t j) const {
    if (centre == nullptr) return v * x;
    const double d = x - centre[j];
    return v * (d * d);
  }
};

/// Adds the terms of rows [row, row + rows) to sum[col], col in [0, cols), in row order.
void weighted_sums(const ColumnBlock& block, int64_t row, int64_t rows, int64_t cols,
                   const Weighing& weighing, double* sum) noexcept;

/// The kernel of the instruction set in use.
ColumnStatsFn* column_stats_kernel() noexcept;

}  // namespace torchext::cpu
