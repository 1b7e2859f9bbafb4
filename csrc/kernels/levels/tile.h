// The one hot loop of the level solvers: eight row minima of a matrix that is never stored.
//
// A tile works on up to eight rows and a range of columns. What an entry (row r, column c) is
// depends on the kernel; a[k] are arrays over the columns or over the rows:
//
//   ends       columns P p q, rows x y:                      P + p x + q y
//   blocks     columns P p q and P' p' q', rows x y H, x' y' H':
//              the smaller of H + min(P + p x + q y, P' + p' x + q' y) and of the same with x' y'
//              H'
//   clusters   columns F W S Q, rows W S Q, differences n = W_r - W_c etc.:
//              F + max(0, Q_r - Q_c - (S_r - S_c)^2 / n)
//
// The cost of an interval between two levels is such a sum of two products (levels.md says how), so
// ends and blocks need no division and no branch. Columns from `ready` of a row on, but below its
// `end`, have the entry z_c + z_r instead; columns from `end` on do not exist. Both limits grow
// with the row.
#pragma once

#include <cstdint>

namespace torchext::levels {

constexpr int kTileRows = 8;  // arrays over rows are readable up to a multiple of 8 beyond the end

struct TileColumns {
  const double* a[6];
  const double* low[6];  // low words; read by the precise kernels only
  const double *z, *z_low;
};

struct TileRows {
  const double* a[6];
  const double* low[6];
  const double *z, *z_low;
  const double *ready, *end;
};

/// Minimum of each row and the first column that attains it; an infinity where there is no column.
struct TileMinima {
  double value[kTileRows], low[kTileRows], column[kTileRows];
};

/// Rows first, first + stride, .. (count <= 8 of them) over the columns [c0, c1).
using TileFn = void(const TileColumns& columns, const TileRows& rows, int64_t first, int64_t stride,
                    int64_t count, int64_t c0, int64_t c1, TileMinima* out) noexcept;

/// Plain double, and double-double throughout.
struct TileKernels {
  TileFn *ends, *blocks, *clusters;
  TileFn *ends_precise, *blocks_precise, *clusters_precise;
};

extern const TileKernels tiles_ref, tiles_avx2, tiles_avx512;

/// The variant of the instruction set in use. All give the same bits.
const TileKernels& tile_kernels() noexcept;

}  // namespace torchext::levels
