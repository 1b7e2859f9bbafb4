// Passes over keys, reference: a block of keys at a time.
#include <algorithm>

#include "../../levels/float_keys.h"
#include "../../levels/key_passes.h"

namespace torchext::levels {
namespace {

void count_keys(const float* x, size_t n, uint32_t* counts, uint32_t* lowest, uint32_t* highest) {
  for_keys(x, n, [=](const uint32_t* keys, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      *lowest = std::min(*lowest, keys[i]);
      *highest = std::max(*highest, keys[i]);
      ++counts[keys[i] >> 16];
    }
  });
}

void sum_keys(const float* x, size_t n, const uint32_t* map, uint64_t* sums) {
  for_keys(x, n, [=](const uint32_t* keys, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const uint32_t entry = map[keys[i] >> 16], shift = entry & 31, low = keys[i] & 0xFFFF;
      uint64_t* const sum = sums + 2 * size_t{(entry >> 5) + (low >> shift)};
      const uint64_t offset = low & ((1u << shift) - 1);
      sum[0] += kOneKey + offset;
      sum[1] += offset * offset;
    }
  });
}

}  // namespace

const KeyPasses key_passes_ref{count_keys, sum_keys};

}  // namespace torchext::levels
