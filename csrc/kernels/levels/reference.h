// The dynamic programme in its plainest form, the oracle of the tests.
#pragma once

#include <cstdint>
#include <vector>

#include "axis.h"

namespace torchext::levels {

constexpr size_t kReferenceItems = 20000;  // more would take minutes

/// D_1(j) = C(first, j), D_i(j) = min over k <= j of D_{i-1}(k) + C(k, j), in long double; interval
/// costs grow by terms that are never negative, so nothing cancels. O(levels x items^2). Ties:
/// smallest k. A path of items, or of cuts for the nearest objective. `weight` [m], x ascending.
std::vector<uint32_t> reference_path(const std::vector<double>& x,
                                     const std::vector<double>& weight, Objective objective,
                                     int64_t levels);

}  // namespace torchext::levels
