#include "rounding_error.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "dd.h"
#include "scaling.h"

namespace torchext::levels {
namespace {

double total(const ExactSum& sum) {
  DD all;
  for (int k = sum.top; k > sum.top - 3; --k) {
    const __int128 slices = sum.slice[k - kLowestSlice];
    const auto high = static_cast<double>(slices);
    const auto low = static_cast<double>(slices - static_cast<__int128>(high));
    const double unit = power_of_two(kSliceBits * k);
    all = all + DD{high * unit, low * unit};
  }
  return all.h;
}

}  // namespace

template <class T>
ErrorMeter::ErrorMeter(const T* x, const double* weight, int64_t n, const double* levels,
                       int64_t count)
    : values_{nullptr, nullptr, weight}, n_(n) {
  double largest = std::max(std::fabs(levels[0]), std::fabs(levels[count - 1]));
  if constexpr (std::is_same_v<T, float>) {
    values_.x32 = x;  // never far enough from 1 by itself
  } else {
    values_.x64 = x;
    largest = std::max(largest, largest_magnitude(x, weight, static_cast<size_t>(n)));
  }
  power_ = scaling_exponent(largest);
  values_.scale = power_of_two(-power_);
  const double heaviest =
      weight != nullptr ? largest_magnitude(weight, nullptr, static_cast<size_t>(n)) : 1.0;
  weight_power_ = weight_exponent(heaviest);
  values_.weight_scale = power_of_two(-weight_power_);
  for (int64_t i = 0; i < count; ++i) level_.push_back(levels[i] * values_.scale);
  while (width_ < count - 1) width_ *= 2;
  const auto readable = static_cast<size_t>(std::max(width_, kRegisterWidth));
  rung_.assign(level_.begin(), level_.begin() + std::max<int64_t>(1, count - 1));
  rung_.resize(readable, std::numeric_limits<double>::infinity());
  level_.resize(readable + 1, level_.back());
}

template ErrorMeter::ErrorMeter(const float*, const double*, int64_t, const double*, int64_t);
template ErrorMeter::ErrorMeter(const double*, const double*, int64_t, const double*, int64_t);

void ErrorMeter::merge(const Errors& from, Errors* into) noexcept {
  levels::merge(from.variance, &into->variance);
  levels::merge(from.bias2, &into->bias2);
  into->clipped += from.clipped;
}

RoundingError ErrorMeter::result(const Errors& sums) const {
  const int power = 2 * power_ + weight_power_;
  return {std::ldexp(total(sums.variance), power), std::ldexp(total(sums.bias2), power),
          sums.clipped};
}

RoundingError ErrorMeter::measure(bool stochastic) const {
  Errors sums;
  add(stochastic, 0, n_, &sums);
  return result(sums);
}

}  // namespace torchext::levels
