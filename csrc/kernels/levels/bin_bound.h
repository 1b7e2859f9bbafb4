// A lower bound of what any levels cost that may lie inside bins, at a price per level.
#pragma once

#include <cstdint>
#include <vector>

#include "axis.h"
#include "tile.h"

namespace torchext::levels {

/// Lower bound of the cost of `steps` intervals from the first item, a single value, to the last,
/// also one: blocks of one bin with slopes (block_layer.h), of which every step costs `price`. Best
/// where the path that is cheapest at `price` has `steps` of them. `from` [items + kTileRows]: the
/// best predecessor of each item on such a path, as priced_path leaves it: it gives the slopes,
/// whatever it is. Stochastic objective only; adds to `work`.
double bin_bound(const Axis& axis, double price, int64_t steps, const uint32_t* from,
                 int64_t* work);

}  // namespace torchext::levels
