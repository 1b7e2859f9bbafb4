// Levels per column: Lloyd-Max centroids, which make nearest rounding unbiased on independent
// columns, or the levels at which unbiased rounding varies least.
//
// A column sample is reduced to a histogram with exact bin means; levels are sought on the bins
// (column_cells.h). Bins are cut from the float representation of |a - median| + c, c
// about a quarter of the central half of the data: they are equally wide near the median and grow
// in proportion to the distance in the tails, so heavy tails cost bins only logarithmically. Counts
// and sums are integers: any order gives the same levels.
#pragma once

#include <cstdint>
#include <vector>

#include "column_cells.h"

namespace torchext::cpu {

constexpr int64_t kHistogramColumns = 16;  // columns of one histogram kernel call
constexpr int64_t kLevelColumns = 64;  // columns worked on together: they share pages of the source
constexpr int64_t kHistogramBins =
    4096;  // room per column; few levels use fewer, which stay in the cache
constexpr int64_t kHistogramRows = int64_t{1} << 23;  // largest sample: counts must not overflow

/// The rows of a sample: all `rows` rows of x, or those that `index` lists.
struct Sample {
  const void* x;
  bool f64;
  int64_t row_stride;
  const int64_t* index;
  int64_t rows;
};

/// How 16 columns map to bins: a = fl32((x - mean) * inverse), which may differ from the encoder's
/// quotient in the last bit, and bin = origin + key, or origin - 1 - key for a < center, clamped to
/// 0 .. bins - 1; key = (bits(t) >> shift) - base, t = fl(|fl(a - center)| + c).
struct HistogramMap {
  uint32_t bins;
  double mean[kHistogramColumns], inverse[kHistogramColumns];
  float center[kHistogramColumns], c[kHistogramColumns];
  uint32_t shift[kHistogramColumns], base[kHistogramColumns];
  uint32_t origin[kHistogramColumns];  // >= 1: bins below it hold values under the center
  uint32_t rest[kHistogramColumns];    // mask of the low `shift` bits
  uint32_t under[kHistogramColumns], over[kHistogramColumns];  // last key on either side
  uint32_t turn[kHistogramColumns];                            // under ^ over
};

/// Adds rows [begin, end) of the sample, columns [col, col + cols), cols <= 16, to
/// bins[16][map.bins]: the count in units of 2^40, below it the sum of the low `shift` bits of t.
using HistogramFn = void(const Sample& sample, int64_t begin, int64_t end, int64_t col,
                         int64_t cols, const HistogramMap& map, uint64_t* bins) noexcept;

HistogramFn histogram_ref, histogram_avx2;

HistogramFn* histogram_kernel() noexcept;

/// Working memory of column_levels, reused from strip to strip.
struct LevelScratch {
  std::vector<uint64_t> bins;
  std::vector<float> pilot;
  Bins column;
  CellScratch cells;
};

/// Levels of columns [col, col + cols), cols <= 64, of a table with `all` columns, for every kind
/// from one histogram. `bounds` [all, 2] are minimum and maximum of the scaled values of ALL rows.
/// out[kinds][all][levels]: ascending, padded with the last one where a column has fewer distinct
/// values; cost[kinds][all]: of rounding the sample. About 1.5 ns a value and 20 us (lloyd) to 60
/// us (the others, 16 levels) a column.
void column_levels(const Sample& sample, int64_t col, int64_t cols, const double* mean,
                   const double* scale, const float* bounds, int64_t levels,
                   const std::vector<ColumnLevels>& kinds, int iterations, int64_t all,
                   LevelScratch* scratch, float* out, LevelCost* cost);

}  // namespace torchext::cpu
