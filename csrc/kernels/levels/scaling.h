// Powers of two that keep squares in range, and copies of values without those that count as
// absent.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "../philox.h"  // TX_HD

namespace torchext::levels {

/// Exponent of the power of two that takes the largest magnitude near 1 where squares could leave
/// the range, else 0.
TX_HD int scaling_exponent(double largest) {
  if (largest == 0 || (largest > 0x1p-300 && largest < 0x1p300)) return 0;
  const int exponent = std::ilogb(largest);
  return exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
}

/// The same for the heaviest weight, always.
TX_HD int weight_exponent(double heaviest) {
  if (!(heaviest > 0)) return 0;
  const int exponent = std::ilogb(heaviest);
  return exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
}

/// Largest magnitude of finite x [n] whose weight (null: 1 each) is positive; 0 if there is none.
double largest_magnitude(const double* x, const double* weight, size_t n);

/// Smallest and largest of x [n] whose weight (null: 1 each) is positive; there must be one.
template <class T>
std::pair<double, double> ends_of(const T* x, const double* weight, size_t n) {
  double lo = HUGE_VAL, hi = -HUGE_VAL;
  for (size_t i = 0; i < n; ++i) {
    if (weight != nullptr && !(weight[i] > 0)) continue;
    lo = std::min<double>(lo, x[i]);
    hi = std::max<double>(hi, x[i]);
  }
  return {lo, hi};
}

/// Exponents of the powers of two by which values and weights were divided.
struct Scaling {
  int value = 0, weight = 0;
};

/// Copies the values of positive weight (null: all, and no weights are written) with their weights,
/// scaled; the largest magnitude of `others` counts too.
template <class T>
Scaling copy_present(const T* x, const double* weight, size_t n, double others,
                     std::vector<double>* values, std::vector<double>* weights);

extern template Scaling copy_present(const float*, const double*, size_t, double,
                                     std::vector<double>*, std::vector<double>*);
extern template Scaling copy_present(const double*, const double*, size_t, double,
                                     std::vector<double>*, std::vector<double>*);

}  // namespace torchext::levels
