// exp and log of the logistic losses in IEEE operations alone, so that every processor, C library
// and GPU gives the same bits. All stay within 2 units in the last place.
//
// V is a double, or a vector of doubles of the compiler, all of whose lanes get the bits that a
// double gets. Polynomials are summed in pairs, pairs of pairs and so on, which waits far less than
// one term after another.
#pragma once

#include <cstdint>
#include <cstring>

#include "philox.h"

namespace torchext {

/// The words of a V, whose bits are those of its doubles.
template <class V>
struct WordsOf;
template <>
struct WordsOf<double> {
  using type = uint64_t;
};

template <class V>
TX_HD typename WordsOf<V>::type words_of(V x) {
  typename WordsOf<V>::type word;
  std::memcpy(&word, &x, sizeof word);
  return word;
}
template <class V>
TX_HD V doubles_of(typename WordsOf<V>::type word) {
  V x;
  std::memcpy(&x, &word, sizeof x);
  return x;
}

TX_HD constexpr double factorial(int n) { return n <= 1 ? 1.0 : n * factorial(n - 1); }

/// e^r = sum of r^n / n!.
struct ExpSeries {
  TX_HD_MEMBER static constexpr double at(int n) { return 1.0 / factorial(n); }
};
/// artanh(s) / s = sum of w^n / (2n + 1), w = s^2.
struct ArtanhSeries {
  TX_HD_MEMBER static constexpr double at(int n) { return 1.0 / (2 * n + 1); }
};

/// Terms [kFirst, kFirst + kCount) of a series over the power of the first; power[i] is x^(2^i).
template <class Series, int kFirst, int kCount, class V>
TX_HD V terms_of(const V* power) {
  if constexpr (kCount == 1) {
    constexpr double c = Series::at(kFirst);
    return V{} + c;
  } else {
    constexpr int kLevel = kCount > 8   ? 3
                           : kCount > 4 ? 2
                           : kCount > 2 ? 1
                                        : 0,
                  kHalf = 1 << kLevel;
    return terms_of<Series, kFirst, kHalf>(power) +
           power[kLevel] * terms_of<Series, kFirst + kHalf, kCount - kHalf>(power);
  }
}

template <class Series, int kFirst, int kCount, class V>
TX_HD V series(V x) {
  V power[4] = {x};
  for (int i = 1; i < 4; ++i) power[i] = power[i - 1] * power[i - 1];
  return terms_of<Series, kFirst, kCount>(power);
}

constexpr double kWhole = 0x1.8p52;  // adding it rounds to a whole number, in the low bits
constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;  // 33 bits, the rest

/// 2^k for whole k in [-1022, 1023].
template <class V>
TX_HD V power_of_two(V k) {
  return doubles_of<V>((words_of(k + kWhole) + 1023u) << 52u);
}

/// e^x, x <= 0: 2^k e^r with |r| <= ln(2) / 2. NaN stays NaN.
template <class V>
TX_HD V exp_of_negative(V x) {
  const V least = V{} - 746.0;  // less than half the least double
  const V to = x < least ? least : x;
  const V k = (to * 0x1.71547652b82fep+0 + kWhole) - kWhole, half = (k * 0.5 + kWhole) - kWhole;
  const V r = (to - k * kLn2High) - k * kLn2Low;             // the first product is exact
  const V fraction = 1.0 + r * series<ExpSeries, 1, 13>(r);  // |r| < 0.35: the rest is below 2^-60
  return fraction * power_of_two(half) * power_of_two(k - half);  // rounded once
}

/// 2 artanh(s), s^2 <= 1/9: what is left out is below 2^-58.
template <class V>
TX_HD V twice_artanh(V s) {
  const V w = s * s, twice = 2.0 * s;
  return twice + twice * (w * series<ArtanhSeries, 1, 16>(w));
}

/// log(1 + s), 0 <= s <= 1.
template <class V>
TX_HD V log_one_plus(V s) {
  return twice_artanh(s / (2.0 + s));
}

/// log(x), 1 <= x < 2^1022: k log(2) + log(m) with m in [3/4, 3/2]. NaN stays NaN.
template <class V>
TX_HD V log_of(V x) {
  const auto word = words_of(x);
  const V from_one = doubles_of<V>((word & 0xfffffffffffffu) | 0x3ff0000000000000u);  // [1, 2)
  const V exponent = doubles_of<V>((word >> 52u) | 0x4330000000000000u) - (0x1p52 + 1023);
  const auto high = from_one > V{} + 1.5;
  const V m = high ? from_one * 0.5 : from_one, k = high ? exponent + 1.0 : exponent;
  const V found = k * kLn2High + (twice_artanh((m - 1.0) / (m + 1.0)) + k * kLn2Low);
  return found + x * 0.0;  // NaN
}

/// Loss log(1 + e^(-y z)) of a score z and a label y = +-1, and its derivative in z.
template <class V>
struct LossAndSlopeOf {
  V loss, slope;
};
using LossAndSlope = LossAndSlopeOf<double>;

template <class V>
TX_HD LossAndSlopeOf<V> logistic_loss(V z, V y) {
  const V t = y * z, zero = V{}, one = V{} + 1.0;
  const V small = exp_of_negative(t < zero ? t : -t);  // in [0, 1]: no overflow on either side
  return {log_one_plus(small) + (t < zero ? -t : zero),
          -y * (t >= zero ? small : one) / (1.0 + small)};
}

}  // namespace torchext
