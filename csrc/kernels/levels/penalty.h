// The programme without its layers: a price per level in place of their number.
//
// The least cost f(s) is convex in s (the interval costs have the quadrangle inequality), so for
// every price between f(s) - f(s + 1) and f(s - 1) - f(s) the path that is cheapest with its levels
// paid for has s of them and is the optimum. One pass over the positions finds it; a few passes
// find the price.
#pragma once

#include <cstdint>
#include <vector>

#include "path.h"

namespace torchext::levels {

/// A path with more steps than this means a price that is far too low for `steps` of them.
inline double most_steps(int64_t steps) { return static_cast<double>(4 * steps + 16); }

/// Bound on the error of an entry with its price; `largest`: the magnitudes that it is made of.
inline double priced_error(double largest, bool precise, const Axis& axis) {
  return (precise ? 0x1p-98 : 10 * 0x1p-53) * largest + axis.cut_error;
}

/// The cheapest path of exactly `steps` steps through the listed candidates, from the first to the
/// last, or false: the price was not found (as where f is straight, which values on a grid have) or
/// rounding hides it. Candidates as in best_path, more than `steps` of them. `price` is where the
/// search starts (0: an estimate) and where it ended. Adds to path->work even when it fails.
bool priced_path(const Axis& axis, Objective objective, const std::vector<uint32_t>& candidates,
                 int64_t steps, bool precise, double* price, PathScratch* scratch, Path* path);

/// The candidates that an optimal path may visit, given `path` as priced_path found it in plain
/// double at `price`, nothing having touched `scratch` since.
std::vector<uint32_t> prune_by_price(const Axis& axis, Objective objective,
                                     const std::vector<uint32_t>& candidates, double price,
                                     const Path& path, PathScratch* scratch);

}  // namespace torchext::levels
