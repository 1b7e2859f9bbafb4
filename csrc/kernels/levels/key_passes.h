// The two passes over all float32 values that bins take: what the time of most levels goes to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace torchext::levels {

constexpr uint64_t kOneKey = uint64_t{1} << 40;  // a count, above the sum of offsets

/// Integers, so that all variants give the same. Sorted data would update one counter again before
/// it has been written; all variants therefore take four parts of x in turn.
struct KeyPasses {
  /// Counts the upper halves of the keys of x [n] in counts [65536]; `lowest` and `highest` move to
  /// the smallest and the largest key.
  void (*count)(const float* x, size_t n, uint32_t* counts, uint32_t* lowest, uint32_t* highest);

  /// Per bin kOneKey for every value plus its offset in the bin, and the square of the offset.
  /// `map`: per upper half the number of its first bin << 5 | shift. sums [bins, 2]; n <= 2^23.
  void (*sum)(const float* x, size_t n, const uint32_t* map, uint64_t* sums);
};

extern const KeyPasses key_passes_ref, key_passes_avx2, key_passes_avx512;

const KeyPasses& key_passes() noexcept;

}  // namespace torchext::levels
