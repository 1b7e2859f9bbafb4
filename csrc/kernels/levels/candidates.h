// Optimal levels among given candidates: a grid of integers, the values of a narrow format.
#pragma once

#include <cstdint>
#include <vector>

#include "solve.h"

namespace torchext::levels {

/// As solve(), the levels being some of `candidates`: finite, strictly ascending, for the
/// stochastic objective from the smallest value (of positive weight) or below to the largest or
/// above. The lower bound is of levels among the candidates. O(levels m log m) for m candidates.
template <class T>
Solution solve_among(const T* x, const double* weight, size_t n, Objective objective,
                     int64_t levels, const std::vector<double>& candidates);

extern template Solution solve_among(const float*, const double*, size_t, Objective, int64_t,
                                     const std::vector<double>&);
extern template Solution solve_among(const double*, const double*, size_t, Objective, int64_t,
                                     const std::vector<double>&);

}  // namespace torchext::levels
