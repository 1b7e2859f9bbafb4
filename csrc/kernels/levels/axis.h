// The data as the level solvers see it: items in ascending order with the sums of everything below.
//
// An item is one distinct value, or a bin: values known only to lie in [lo, hi], with their sums.
// All sums are about a centre near the mean, in double-double, so that differences of them stay
// exact enough when a cost is 10^-20 of the squares that it is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "interval.h"

namespace torchext::levels {

struct Axis {
  std::vector<double> lo, hi;  // smallest and largest value of each item; equal: a single value
  std::vector<Cut> cut;        // size() + 1 of them: cut[i] lies below item i
  bool binned = false;         // a level may lie inside an item that is not a single value
  double centre = 0;
  double radius = 0;       // largest |t|
  double largest_sum = 0;  // largest |S|
  double cut_error = 0;    // bound on what the error of the sums adds to the cost of an interval

  size_t size() const { return lo.size(); }
  bool single(size_t i) const { return lo[i] == hi[i]; }
  DD about(double value) const { return two_sum(value, -centre); }
  double total() const { return cut.back().w.h; }

  /// Sets radius, largest_sum and cut_error; `terms` is the number of terms in the longest sum.
  void bound_error(double terms);
};

/// The axis of the negated values.
Axis mirror(const Axis& axis);

/// Distinct values of x [n], ascending, with their weights (null: 1 each; zero weights are
/// dropped). Reuses the memory of `axis`.
void axis_of_sorted(const double* x, const double* weight, size_t n, Axis* axis);

/// Cost of the levels at `path` (items, or cuts for the nearest objective) and whether it is good
/// to 2^-40 relative.
double path_cost(const Axis& axis, Objective objective, const std::vector<uint32_t>& path,
                 bool* accurate);

}  // namespace torchext::levels
