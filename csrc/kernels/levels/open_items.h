// From an axis of bins to one in which some bins are the values they hold.
#pragma once

#include <cstdint>
#include <vector>

#include "axis.h"
#include "bins.h"

namespace torchext::levels {

/// `opened`: the listed items replaced by their distinct values, the other live ones kept, runs of
/// dead ones joined. `items` and `live` ascend. Returns the new number of each old item and of the
/// end.
std::vector<uint32_t> open_items(const Axis& axis, const Bins& bins,
                                 const std::vector<uint32_t>& items,
                                 const std::vector<uint32_t>& live, Axis* opened);

}  // namespace torchext::levels
