// The exact solver that the others are measured against: SMAWK row minima, O(levels x values).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "axis.h"

namespace torchext::levels {

/// Optimal levels of ascending x [n] with weights (null: 1 each) in plain double arithmetic: exact
/// up to rounding, not certified. Returns their cost, summed term by term. Memory: 4 levels x n
/// bytes.
double smawk_levels(const double* x, const double* weight, size_t n, Objective objective,
                    int64_t count, std::vector<double>* levels);

}  // namespace torchext::levels
