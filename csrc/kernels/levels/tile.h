// The one hot loop of the level solvers: all row minima of a totally monotone matrix that is never
// stored, eight rows at a time.
//
// What an entry (row r, column c) is depends on the kernel; a[k] are arrays over columns or rows:
//
//   ends       columns P p q, rows x y:                      P + p x + q y
//   blocks     columns P p q and P' p' q', rows x y H, x' y' H':
//              the smaller of H + min(P + p x + q y, P' + p' x + q' y) and of the same with x' y'
//              H'
//   clusters   columns F W S Q, rows W S Q, differences n = W_r - W_c etc.:
//              F + max(0, Q_r - Q_c - (S_r - S_c)^2 / n)
//
// The cost of an interval between two levels is such a sum of two products (docs/levels.md), so
// ends and blocks need no division and no branch. Columns from `ready` of a row on, but below its
// `end`, have the entry z_c + z_r instead; columns from `end` on do not exist. Both limits grow
// with the row.
#pragma once

#include <cstdint>

namespace torchext::levels {

constexpr int kTileRows = 8;  // all arrays are readable (results: writable) so far beyond their end

/// The minimum of a row without columns. Finite, so that sums with it stay ordered in
/// double-double.
constexpr double kUnreachable = 0x1p1000;

struct TileColumns {
  const double* a[6];
  const double* low[6];  // low words; read by the precise kernels only
  const double *z, *z_low;
  int64_t count;
};

struct TileRows {
  const double* a[6];
  const double* low[6];
  const double *z, *z_low;
  const double *ready, *end;
  int64_t count;
};

/// Minimum of each row and the first column that attains it.
struct RowMinima {
  double *value, *low;
  uint32_t* arg;
};

/// The first argmin must not decrease from row to row. Every eighth row of every eighth row .. is
/// solved first and bounds the columns of those between: three passes over the columns serve 512
/// rows. Returns the number of entries evaluated.
using RowMinimaFn = int64_t(const TileColumns& columns, const TileRows& rows,
                            const RowMinima& out) noexcept;

/// Shortest path through positions 0 .. rows.count - 1 of which each step costs `price` on top:
/// value[0] = 0, value[r] = min over c < r of value[c] + cost(c, r) + price, arg[r] its first
/// argmin. The arrays of `columns` and `rows` are those of RowMinima kernels, with `ready` beyond
/// reach. columns.a[0] is base[0], blocks' columns.a[3] base[1], which are written: value + height,
/// or value itself where `height` is null. The cost is the entry, of `ends` - height[0] of the row.
/// Costs are never negative and grow with the interval, so do values: columns that cost `margin`
/// more than another one for some row, or as much as the price alone shows, are left out from there
/// on. margin covers the rounding of two values, and by how much a bound breaks these rules.
struct PricedSteps {
  TileColumns columns;
  TileRows rows;
  const double *height[2], *height_low[2];
  double price, margin;
  double *base[2], *base_low[2], *value, *value_low;
  uint32_t* arg;
};

/// Returns the number of entries evaluated.
using PricedPathFn = int64_t(const PricedSteps& steps) noexcept;

/// Sums of t and t^2, t = x - centre, of runs of 32 values: out[run] = {S, its low word, Q, its low
/// word}; out is written up to a multiple of 8 runs.
using RunSumsFn = void(const double* x, int64_t runs, double centre, double* out) noexcept;

/// Plain double, and double-double throughout.
struct TileKernels {
  RowMinimaFn *ends, *blocks, *clusters;
  RowMinimaFn *ends_precise, *blocks_precise, *clusters_precise;
  PricedPathFn *priced_ends, *priced_blocks, *priced_clusters;
  PricedPathFn *priced_ends_precise, *priced_clusters_precise;
  RunSumsFn* run_sums;
};

extern const TileKernels tiles_ref, tiles_avx2, tiles_avx512;

/// The variant of the instruction set in use. All give the same bits.
const TileKernels& tile_kernels() noexcept;

/// By how many errors of one entry a minimum may be wrong: a wrong argmin of one pass costs up to
/// two errors in each pass after it.
static inline double row_minima_noise(int64_t rows) noexcept {
  int passes = 1;
  for (int64_t reach = kTileRows; reach < rows; reach *= kTileRows) ++passes;
  return 2 * passes + 1;
}

}  // namespace torchext::levels
