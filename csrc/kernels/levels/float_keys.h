// float32 values as integers of the same order, a block at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "float_bin.h"

namespace torchext::levels {

constexpr size_t kKeyBlock = 1024;  // keys computed at a time

/// Calls visit(keys, count) for four parts of x in turn, a block at a time: in sorted data the same
/// bin would otherwise be updated again before it has been written.
template <class Visit>
void for_keys(const float* x, size_t n, const Visit& visit) {
  constexpr size_t kStreams = 4, kEach = kKeyBlock / kStreams;
  uint32_t keys[kKeyBlock];
  const size_t part = n / kKeyBlock * kEach;  // whole blocks
  for (size_t at = 0; at < part; at += kEach) {
    for (size_t k = 0; k < kStreams; ++k) {
      const float* from = x + k * part + at;
      for (size_t i = 0; i < kEach; ++i) keys[i + k * kEach] = key_of(from[i]);
    }
    uint32_t mixed[kKeyBlock];
    for (size_t i = 0; i < kEach; ++i)
      for (size_t k = 0; k < kStreams; ++k) mixed[kStreams * i + k] = keys[i + k * kEach];
    visit(mixed, kKeyBlock);
  }
  for (size_t at = kStreams * part; at < n; at += kKeyBlock) {
    const size_t count = std::min(kKeyBlock, n - at);
    for (size_t i = 0; i < count; ++i) keys[i] = key_of(x[at + i]);
    visit(keys, count);
  }
}

}  // namespace torchext::levels
