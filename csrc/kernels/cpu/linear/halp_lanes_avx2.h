// Lanes of the integer loops of HALP, AVX2.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../../linear/unroll.h"

namespace torchext::cpu {
namespace {

using V = __m256i;
constexpr int kLanes = 16;  // of 16 bits

TX_INL V load(const void* p) { return _mm256_loadu_si256(static_cast<const V*>(p)); }
TX_INL void put(void* p, V v) { _mm256_storeu_si256(static_cast<V*>(p), v); }
TX_INL V words16(int v) { return _mm256_set1_epi16(static_cast<int16_t>(v)); }
TX_INL V words32(int32_t v) { return _mm256_set1_epi32(v); }
TX_INL V zeros() { return _mm256_setzero_si256(); }

TX_INL V wide(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TX_INL V wide(const int16_t* p) { return load(p); }
TX_INL V lanes(const uint8_t* p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TX_INL V lanes(const uint16_t* p) { return load(p); }

/// Half of the 16-bit lanes of a, each with that of b as its high half; packed() puts them back.
template <int kHigh>
TX_INL V pairs(V a, V b) {
  return kHigh == 0 ? _mm256_unpacklo_epi16(a, b) : _mm256_unpackhi_epi16(a, b);
}
TX_INL V packed(V low, V high) { return _mm256_packs_epi32(low, high); }
TX_INL V add_products(V sum, V a, V b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
TX_INL V add32(V a, V b) { return _mm256_add_epi32(a, b); }
TX_INL V less32(V a, V b) { return _mm256_sub_epi32(a, b); }
template <int kShift>
TX_INL V shifted(V v) {
  return _mm256_srai_epi32(v, kShift);
}

/// Adds 1 to the lanes of `counts` where |v| > most.
TX_INL void count_beyond(V& counts, V v, V most) {
  counts = _mm256_sub_epi32(counts, _mm256_cmpgt_epi32(_mm256_abs_epi32(v), most));
}

/// 16-bit lanes clamped to +-most, as codes.
TX_INL V clamped(V v, int16_t most) {
  return _mm256_max_epi16(_mm256_min_epi16(v, words16(most)), words16(-most));
}
TX_INL void put_codes(int8_t* p, V v) {
  const __m128i codes = _mm_packs_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), codes);
}
TX_INL void put_codes(int16_t* p, V v) { put(p, v); }

/// Sums of 32-bit lanes in 64 bits.
TX_INL V add_wide(V sum, V narrow) {
  return _mm256_add_epi64(
      _mm256_add_epi64(sum, _mm256_cvtepi32_epi64(_mm256_castsi256_si128(narrow))),
      _mm256_cvtepi32_epi64(_mm256_extracti128_si256(narrow, 1)));
}
TX_INL int64_t total(V sum) {
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  return _mm_extract_epi64(two, 0) + _mm_extract_epi64(two, 1);
}

/// Adds the products of kLanes columns. Of bytes a 32-bit lane holds 256 sums of two; of 16-bit
/// codes not even two, so they go to 64 bits at once.
TX_INL void add_dot(const int8_t*, V& narrow, V&, V x, V z) {
  narrow = _mm256_add_epi32(narrow, _mm256_madd_epi16(x, z));
}
TX_INL void add_dot(const int16_t*, V&, V& sum, V x, V z) {
  sum = add_wide(sum, _mm256_madd_epi16(x, z));
}

}  // namespace
}  // namespace torchext::cpu
