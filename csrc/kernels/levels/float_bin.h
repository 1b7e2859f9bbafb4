// Bins of float32 values by their bit pattern: the rules that the CPU and CUDA share.
//
// A key has the order of the value. Its upper half names a coarse bin; a coarse bin is cut into a
// power of two of bins by the bits below. Counts and sums of offsets inside a bin are integers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "interval.h"

namespace torchext::levels {

constexpr uint32_t kCoarseBins = 65536;
constexpr uint32_t kNoBin = UINT32_MAX;

/// Keys have the order of the values; -0.0 has the key of +0.0.
TX_HD uint32_t key_of(float x) {
  const float positive_zero = x + 0.0f;
  uint32_t u;
  std::memcpy(&u, &positive_zero, sizeof u);
  return u ^ (static_cast<uint32_t>(static_cast<int32_t>(u) >> 31) | 0x80000000u);
}

TX_HD double value_of(uint32_t key) {
  const uint32_t u = key & 0x80000000u ? key ^ 0x80000000u : ~key;
  float x;
  std::memcpy(&x, &u, sizeof x);
  return static_cast<double>(x);
}

/// What a step of one does to the values of a coarse bin.
TX_HD double unit_of(uint32_t coarse) {
  return value_of(coarse << 16 | 1) - value_of(coarse << 16);
}

/// Into how many bins a coarse one is cut: 2^clamp(weight + level, 0, limit) at a common level.
struct CutRule {
  int weight, limit;

  TX_HD_MEMBER int bits(int level) const {
    const int b = weight + level;
    return b < 0 ? 0 : b > limit ? limit : b;
  }
};

/// weight: log2 of count x width^2, in thirds rounded down: integers, the same on every machine.
TX_HD CutRule cut_rule(uint32_t coarse, uint64_t count) {
  int exponent, log_count = 0;
  while (count >> log_count > 1) ++log_count;
  std::frexp(unit_of(coarse), &exponent);
  const int thirds = log_count + 2 * exponent;
  return {thirds >= 0 ? thirds / 3 : -((-thirds + 2) / 3), log_count + 2 < 16 ? log_count + 2 : 16};
}

/// What is known about the values of a bin: start + unit m, with the number, the sum and the sum of
/// squares of the offsets m.
struct FloatBin {
  double lo, hi, start, unit, n, s;
  uint64_t q;

  /// What n values at `start` and their offsets add to a plain sum of value - least.
  TX_HD_MEMBER double above(double least) const { return n * (start - least) + unit * s; }

  /// Sums of w, w t and w t^2.
  TX_HD_MEMBER Cut sums(double centre) const {
    const DD t = two_sum(start, -centre), nt = DD{n, 0} * t;
    const double rest = static_cast<double>(q >> 32) * 0x1p32;
    const DD squares =
        two_sum(rest * unit * unit, static_cast<double>(q & 0xFFFFFFFFu) * unit * unit);
    const double first = unit * s;
    return {DD{n, 0}, nt + DD{first, 0}, t * (nt + DD{2 * first, 0}) + squares};
  }
};

/// The bin of 2^shift keys from `key` on. Its ends are its values where they are all the same,
/// otherwise those of its keys, but no further than the data.
TX_HD FloatBin float_bin(uint32_t key, uint32_t shift, uint64_t held, uint64_t first,
                         uint64_t second, double least, double most) {
  const double start = value_of(key), unit = unit_of(key >> 16);
  FloatBin bin{start, start, start, unit, static_cast<double>(held), static_cast<double>(first),
               second};
  // All offsets are equal if and only if n sum m^2 = (sum m)^2.
  using Wide = unsigned __int128;
  if (Wide{held} * second == Wide{first} * first) {
    const uint64_t offset = first / held;  // exact
    bin.lo = bin.hi = start + unit * static_cast<double>(offset);
    return bin;
  }
  const double end = start + unit * static_cast<double>((1u << shift) - 1);
  bin.lo = start < least ? least : start;
  bin.hi = most < end ? most : end;
  return bin;
}

}  // namespace torchext::levels
