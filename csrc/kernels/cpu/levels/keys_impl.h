// Passes over keys in vectors of kLanes, for a file that defines Keys and what is done with them.
// Four parts of x in turn, value by value.
#include "../../levels/key_passes.h"

namespace torchext::levels {
namespace {

constexpr size_t kParts = 4;

void count_keys(const float* x, size_t n, uint32_t* counts, uint32_t* lowest, uint32_t* highest) {
  const size_t part = n / (kParts * kLanes) * kLanes;
  alignas(64) uint16_t upper[kParts][kLanes];
  Keys low = splat(*lowest), high = splat(*highest);
  for (size_t at = 0; at < part; at += kLanes) {
    for (size_t k = 0; k < kParts; ++k) {
      const Keys keys = keys_of(load(x + k * part + at));
      low = lesser(low, keys);
      high = greater(high, keys);
      store_upper(upper[k], keys);
    }
    for (size_t i = 0; i < kLanes; ++i)
      for (size_t k = 0; k < kParts; ++k) ++counts[upper[k][i]];
  }
  for (size_t at = kParts * part; at < n; at += kLanes) {
    const size_t rest = n - at < kLanes ? n - at : kLanes;
    const Keys keys = keys_of(load_first(x + at, rest));
    low = lesser(low, keys);
    high = greater(high, keys);
    store_upper(upper[0], keys);
    for (size_t i = 0; i < rest; ++i) ++counts[upper[0][i]];
  }
  *lowest = least(low);
  *highest = most(high);
}

void sum_keys(const float* x, size_t n, const uint32_t* map, uint64_t* sums) {
  const size_t part = n / (kParts * kLanes) * kLanes;
  alignas(64) uint32_t bins[kParts][kLanes];
  alignas(64) uint64_t terms[kParts][2 * kLanes];
  const auto add = [&](size_t k, size_t i) {
    auto* const sum = reinterpret_cast<__m128i*>(sums + 2 * size_t{bins[k][i]});
    const __m128i term = _mm_load_si128(reinterpret_cast<const __m128i*>(terms[k] + 2 * i));
    _mm_storeu_si128(sum, _mm_add_epi64(_mm_loadu_si128(sum), term));
  };
  for (size_t at = 0; at < part; at += kLanes) {
    for (size_t k = 0; k < kParts; ++k)
      store_terms(keys_of(load(x + k * part + at)), map, bins[k], terms[k]);
    for (size_t i = 0; i < kLanes; ++i)
      for (size_t k = 0; k < kParts; ++k) add(k, i);
  }
  for (size_t at = kParts * part; at < n; at += kLanes) {
    const size_t rest = n - at < kLanes ? n - at : kLanes;
    store_terms(keys_of(load_first(x + at, rest)), map, bins[0], terms[0]);
    for (size_t i = 0; i < rest; ++i) add(0, i);
  }
}

}  // namespace
}  // namespace torchext::levels
