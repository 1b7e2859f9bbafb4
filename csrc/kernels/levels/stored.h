// Levels in the format that they are stored in.
#pragma once

#include <cstdint>
#include <vector>

namespace torchext::levels {

/// A binary floating-point format: significant bits, exponents of the smallest normal and of the
/// largest number.
struct StoredFormat {
  int bits, smallest, largest;
};

constexpr StoredFormat kFloat16{11, -14, 15}, kBFloat16{8, -126, 127}, kFloat32{24, -126, 127},
    kFloat64{53, -1022, 1023};

/// Rounds ascending levels to nearest even, the two ends outward if `outward`, so that they cover
/// what they covered, and merges those that become equal; at most `most` are left. False if one is
/// beyond the largest number of the format, and then it is `levels[0]`. `changed`: a level moved.
bool store_levels(const StoredFormat& format, bool outward, int64_t most,
                  std::vector<double>* levels, bool* changed);

}  // namespace torchext::levels
