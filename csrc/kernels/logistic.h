// exp and log1p of the logistic loss in IEEE operations alone, so that every processor, C library
// and GPU gives the same bits. Both stay within 2 units in the last place.
#pragma once

#include <cstdint>
#include <cstring>

#include "philox.h"

namespace torchext {

TX_HD constexpr double factorial(int n) { return n <= 1 ? 1.0 : n * factorial(n - 1); }

/// sum over n >= kFirst of r^(n - kFirst) / n!, cut where |r| < 0.35 leaves less than 2^-60.
template <int kFirst>
TX_HD double exp_series(double r) {
  constexpr double c = 1.0 / factorial(kFirst);
  if constexpr (kFirst == 14) {
    return c;
  } else {
    return c + r * exp_series<kFirst + 1>(r);
  }
}

/// sum over n >= kFirst of w^(n - kFirst) / (2n + 1), cut where w <= 1/9 leaves less than 2^-58.
template <int kFirst>
TX_HD double atanh_series(double w) {
  constexpr double c = 1.0 / (2 * kFirst + 1);
  if constexpr (kFirst == 17) {
    return c;
  } else {
    return c + w * atanh_series<kFirst + 1>(w);
  }
}

/// 2^k, -1022 <= k <= 0.
TX_HD double power_of_two(int64_t k) {
  const uint64_t word = static_cast<uint64_t>(k + 1023) << 52;
  double x;
  std::memcpy(&x, &word, sizeof x);
  return x;
}

/// e^x, x <= 0: 2^k e^r with |r| <= ln(2) / 2. NaN stays NaN.
TX_HD double exp_of_negative(double x) {
  if (x < -746.0) return 0.0;  // below half the least double
  if (x != x) return x;
  const auto k = static_cast<int64_t>(x * 0x1.71547652b82fep+0 - 0.5);  // to the nearest: x <= 0
  const auto whole = static_cast<double>(k);
  // ln(2) in two parts: the first has 33 bits, so that its product is exact.
  const double r = (x - whole * 0x1.62e42feep-1) - whole * 0x1.a39ef35793c76p-33;
  const double fraction = 1.0 + r * exp_series<1>(r);
  return fraction * power_of_two(k / 2) * power_of_two(k - k / 2);  // rounded once, if subnormal
}

/// log(1 + s), 0 <= s <= 1: 2 atanh(s / (2 + s)).
TX_HD double log_one_plus(double s) {
  const double z = s / (2.0 + s), w = z * z, twice = 2.0 * z;
  return twice + twice * (w * atanh_series<1>(w));
}

/// Loss log(1 + e^(-y z)) of a score z and a label y = +-1, and its derivative in z.
struct LossAndSlope {
  double loss, slope;
};
TX_HD LossAndSlope logistic_loss(double z, double y) {
  const double t = y * z;
  const double small = exp_of_negative(t < 0.0 ? t : -t);  // in [0, 1]: no overflow on either side
  return {log_one_plus(small) + (t < 0.0 ? -t : 0.0),
          -y * (t >= 0.0 ? small : 1.0) / (1.0 + small)};
}

}  // namespace torchext
