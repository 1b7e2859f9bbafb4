// Sorting values with their weights: radix sort, so that the time does not depend on the data.
#pragma once

#include <cstddef>
#include <vector>

namespace torchext::levels {

/// Sorts finite x [n] ascending and permutes weight (null: none) along; -0.0 becomes +0.0. Equal
/// values have their weights ascending, so any order of the input gives the same output. Returns at
/// once if x is sorted and there are no weights.
void sort_values(double* x, double* weight, size_t n);

/// Finite x [n] in ascending order.
void sort_floats(const float* x, size_t n, double* out);

}  // namespace torchext::levels
