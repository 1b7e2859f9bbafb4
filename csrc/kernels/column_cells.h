// From the histogram of a column to its levels: starts, descent on the bins, and what is known of
// the cost.
#pragma once

#include <cstdint>
#include <vector>

#include "levels/solve.h"

namespace torchext::cpu {

/// lloyd: iterations from quantiles and from the asymptotic density; nearest: from the exact
/// optimum over runs of bins as well; stochastic: levels of least variance of unbiased rounding,
/// from the least to the greatest value.
enum class ColumnLevels : int { lloyd = 0, nearest = 1, stochastic = 2 };

/// Populated bins in ascending order. value: mean of the values in a bin; width: largest less
/// smallest value it can hold; count, sum, square: prefix sums of 1, value, value^2, from 0.
struct Bins {
  std::vector<double> value, width, count, sum, square;

  int64_t size() const { return static_cast<int64_t>(value.size()); }
};

/// Working memory of find_levels, reused from column to column.
struct CellScratch {
  std::vector<int64_t> cut, next;
  std::vector<double> node, weight, level;
  levels::Scratch solver;
};

/// What rounding to the levels costs per row.
struct LevelCost {
  double mean;   // squared error (nearest) or variance (stochastic), values spread evenly in a bin
  double bound;  // the true mean differs by no more than this
};

/// Ascending distinct levels, at most `levels`, into out; returns how many. ends: least and
/// greatest value of all rows, the outer levels of the stochastic kind.
int64_t find_levels(const Bins& bins, const float* ends, int64_t levels, ColumnLevels kind,
                    int iterations, CellScratch* scratch, float* out);

/// Cost of ascending levels that find_levels chose for these bins.
LevelCost cost_of(const Bins& bins, const float* level, int64_t levels, ColumnLevels kind);

}  // namespace torchext::cpu
