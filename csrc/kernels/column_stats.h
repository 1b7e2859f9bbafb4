// First pass over a data set: sums, minimum and maximum of every column, and whether all is finite.
#pragma once

#include <cstdint>

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

/// Adds weight[r] * x to sum[col] for the columns [0, cols) of rows [row, row + rows), in row order
/// and in double; `weight` is that of row 0.
void weighted_sums(const ColumnBlock& block, int64_t row, int64_t rows, int64_t cols,
                   const float* weight, double* sum) noexcept;

/// The kernel of the instruction set in use.
ColumnStatsFn* column_stats_kernel() noexcept;

}  // namespace torchext::cpu
