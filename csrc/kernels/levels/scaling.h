// Powers of two that keep squares in range, and copies of values without those that count as
// absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace torchext::levels {

/// Exponent of the power of two that takes the largest magnitude near 1 where squares could leave
/// the range, else 0.
int scaling_exponent(double largest);

/// Largest magnitude of finite x [n] whose weight (null: 1 each) is positive; 0 if there is none.
double largest_magnitude(const double* x, const double* weight, size_t n);

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
