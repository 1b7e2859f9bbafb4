// Levels in the format that they are stored in.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../philox.h"  // TX_HD

namespace torchext::levels {

/// A binary floating-point format: significant bits, exponents of the smallest normal and of the
/// largest number.
struct StoredFormat {
  int bits, smallest, largest;
};

constexpr StoredFormat kFloat16{11, -14, 15}, kBFloat16{8, -126, 127}, kFloat32{24, -126, 127},
    kFloat64{53, -1022, 1023};

TX_HD double largest_number(const StoredFormat& format) {
  return std::ldexp(2 - std::ldexp(1.0, 1 - format.bits), format.largest);
}

enum class Toward : int { below, nearest, above };  // nearest: ties to even

/// One level rounded to the format; what is beyond its largest number stays beyond.
TX_HD double stored_level(const StoredFormat& format, double x, Toward toward) {
  int exponent = x == 0 ? format.smallest : std::ilogb(x);
  if (exponent < format.smallest) exponent = format.smallest;
  const double t = std::ldexp(x, format.bits - 1 - exponent);  // in units in the last place
  const double rounded = toward == Toward::below   ? std::floor(t)
                         : toward == Toward::above ? std::ceil(t)
                                                   : std::nearbyint(t);
  return std::ldexp(rounded, exponent + 1 - format.bits) + 0.0;
}

/// How level i of `count` is rounded: the two ends outward if `outward`.
TX_HD Toward direction(bool outward, int64_t i, int64_t count) {
  if (!outward || count < 2) return Toward::nearest;
  return i == 0 ? Toward::below : i + 1 == count ? Toward::above : Toward::nearest;
}

/// Rounds ascending levels to nearest even, the two ends outward if `outward`, so that they cover
/// what they covered, and merges those that become equal; at most `most` are left. False if one is
/// beyond the largest number of the format, and then it is `levels[0]`. `changed`: a level moved.
bool store_levels(const StoredFormat& format, bool outward, int64_t most,
                  std::vector<double>* levels, bool* changed);

}  // namespace torchext::levels
