// The exact solver that the others are measured against: SMAWK row minima, O(levels x values).
#pragma once

#include <cstdint>
#include <vector>

#include "axis.h"

namespace torchext::levels {

/// Optimal path over all items (nearest: all cuts) in plain double arithmetic: exact up to
/// rounding, not certified. 2 <= levels < items (nearest: 1 <= levels). Memory: 4 levels x items
/// bytes.
std::vector<uint32_t> smawk_path(const Axis& axis, Objective objective, int64_t levels);

}  // namespace torchext::levels
