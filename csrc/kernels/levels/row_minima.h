// All row minima of a totally monotone matrix by tiles: divide and conquer with eight rows at a
// time.
#pragma once

#include <cstdint>
#include <vector>

#include "tile.h"

namespace torchext::levels {

/// The minimum of a row without columns. Finite, so that sums with it stay ordered in
/// double-double.
constexpr double kUnreachable = 0x1p1000;

/// value[r], low[r] = minimum of row r, arg[r] = the first column that attains it, r < count.
struct RowMinima {
  double *value, *low;
  uint32_t* arg;
};

/// The first argmin must not decrease from row to row. Every eighth row of every eighth row .. is
/// solved first and bounds the columns of those between: three passes over the columns serve 512
/// rows. `floor` (or null) holds lower bounds of the argmins. Rounded entries cost accuracy: a
/// minimum can be high by 2 errors of an entry per pass. Returns the number of entries evaluated.
int64_t row_minima(TileFn* tile, const TileColumns& columns, int64_t column_count,
                   const TileRows& rows, int64_t count, const uint32_t* floor,
                   const RowMinima& out) noexcept;

/// By how many errors of one entry a minimum of row_minima may be wrong.
double row_minima_noise(int64_t rows) noexcept;

}  // namespace torchext::levels
