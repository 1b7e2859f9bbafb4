// ADAQUANT: greedy merging of intervals, then the dynamic programme on the ends that are left.
#pragma once

#include <cstdint>
#include <vector>

#include "axis.h"

namespace torchext::levels {

/// Ends of at most 4 k + 2 intervals, k = levels - 1, whose cost is at most twice the optimum of k
/// intervals (Zhang et al., ZipML, 2017, with gamma = 1): while there are more, neighbouring
/// intervals are paired and all pairs but the 2 k costliest merged. All items must be single
/// values. Near-linear.
std::vector<uint32_t> merge_intervals(const Axis& axis, int64_t levels);

}  // namespace torchext::levels
