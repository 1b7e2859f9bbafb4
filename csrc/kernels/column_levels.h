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
// Rows whose offsets, below 2^23 each, add up to less than 2^40: so many are counted at a time.
constexpr int64_t kHistogramRows = int64_t{1} << 17;

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

/// Bins per column for so many levels.
static inline int64_t histogram_bins(int64_t levels) {
  return levels <= 16 ? kHistogramBins / 2 : kHistogramBins;
}

/// A strip of columns [col, col + cols), cols <= kLevelColumns, of a table.
struct ColumnStrip {
  int64_t col, cols;
};
constexpr int64_t kStripMaps = kLevelColumns / kHistogramColumns;

/// Working memory, reused from strip to strip.
struct LevelScratch {
  std::vector<uint64_t> packed;
  std::vector<int64_t> count, sum;
  std::vector<float> pilot;
  Bins column;
  CellScratch cells;
};

/// Places the bins of a strip by 512 rows spread over `pilot`. mean, scale: of all columns;
/// `bounds` [all, 2] are minimum and maximum of the scaled values of ALL rows.
void place_bins(const Sample& pilot, ColumnStrip strip, const double* mean, const double* scale,
                const float* bounds, int64_t bins, LevelScratch* scratch, HistogramMap* maps);

/// Adds the rows of a sample to count and sum [cols][bins]: integers, so that parts of a table add
/// up to the whole in any order. About 1.5 ns a value and 3 ns a bin.
void count_rows(const Sample& sample, ColumnStrip strip, const HistogramMap* maps,
                LevelScratch* scratch, int64_t* count, int64_t* sum);

/// What is sought, and where it goes: out[kinds][all][levels], ascending, padded with the last one
/// where a column has fewer distinct values; cost[kinds][all], of rounding what was counted.
struct LevelSearch {
  int64_t levels;
  const std::vector<ColumnLevels>& kinds;
  int iterations;
  const float* bounds;
  int64_t all;
  float* out;
  LevelCost* cost;
};

/// Levels of a strip for every kind from one histogram. 20 us (lloyd) to 60 us (the others, 16
/// levels) a column.
void histogram_levels(ColumnStrip strip, const HistogramMap* maps, const int64_t* count,
                      const int64_t* sum, const LevelSearch& search, LevelScratch* scratch);

/// All three of a sample: bins, counts, levels.
void column_levels(const Sample& sample, ColumnStrip strip, const double* mean, const double* scale,
                   const LevelSearch& search, LevelScratch* scratch);

}  // namespace torchext::cpu
