#include "scaling.h"

#include <algorithm>
#include <cmath>

namespace torchext::levels {

double largest_magnitude(const double* x, const double* weight, size_t n) {
  double part[8] = {};  // eight chains rather than one
  const size_t whole = n / 8 * 8;
  const auto widen = [&](size_t k, size_t i) {
    const double v = weight == nullptr || weight[i] > 0 ? std::fabs(x[i]) : 0.0;
    part[k] = v > part[k] ? v : part[k];
  };
  for (size_t i = 0; i < whole; i += 8)
    for (size_t k = 0; k < 8; ++k) widen(k, i + k);
  for (size_t i = whole; i < n; ++i) widen(0, i);
  return *std::max_element(part, part + 8);
}

template <class T>
Scaling copy_present(const T* x, const double* weight, size_t n, double others,
                     std::vector<double>* values, std::vector<double>* weights) {
  Scaling scaling;
  const auto divide = [](std::vector<double>* v, double largest, int power) {
    if (largest == 0 || power == 0) return 0;
    for (double& a : *v) a = std::ldexp(a, -power);
    return power;
  };
  if (weight == nullptr) {
    values->assign(x, x + n);
  } else {
    values->clear();
    weights->clear();
    for (size_t i = 0; i < n; ++i) {
      if (!(weight[i] > 0)) continue;
      values->push_back(static_cast<double>(x[i]));
      weights->push_back(weight[i]);
    }
    const double heaviest = largest_magnitude(weights->data(), nullptr, weights->size());
    scaling.weight = divide(weights, heaviest, std::ilogb(heaviest));
  }
  const double largest =
      std::max(others, largest_magnitude(values->data(), nullptr, values->size()));
  scaling.value = divide(values, largest, scaling_exponent(largest));
  return scaling;
}

template Scaling copy_present(const float*, const double*, size_t, double, std::vector<double>*,
                              std::vector<double>*);
template Scaling copy_present(const double*, const double*, size_t, double, std::vector<double>*,
                              std::vector<double>*);

}  // namespace torchext::levels
