// Lanes of the integer loops of HALP, AVX-512 VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../../linear/unroll.h"

namespace torchext::cpu {
namespace {

using V = __m512i;
constexpr int kLanes = 32;  // of 16 bits

TX_INL V load(const void* p) { return _mm512_loadu_si512(p); }
TX_INL void put(void* p, V v) { _mm512_storeu_si512(p, v); }
TX_INL V words16(int v) { return _mm512_set1_epi16(static_cast<int16_t>(v)); }
TX_INL V words32(int32_t v) { return _mm512_set1_epi32(v); }
TX_INL V zeros() { return _mm512_setzero_si512(); }

TX_INL V wide(const int8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
TX_INL V wide(const int16_t* p) { return load(p); }
TX_INL V lanes(const uint8_t* p) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
TX_INL V lanes(const uint16_t* p) { return load(p); }

/// Half of the 16-bit lanes of a, each with that of b as its high half; packed() puts them back.
template <int kHigh>
TX_INL V pairs(V a, V b) {
  return kHigh == 0 ? _mm512_unpacklo_epi16(a, b) : _mm512_unpackhi_epi16(a, b);
}
TX_INL V packed(V low, V high) { return _mm512_packs_epi32(low, high); }
TX_INL V add_products(V sum, V a, V b) { return _mm512_dpwssd_epi32(sum, a, b); }
TX_INL V add32(V a, V b) { return _mm512_add_epi32(a, b); }
TX_INL V less32(V a, V b) { return _mm512_sub_epi32(a, b); }
template <int kShift>
TX_INL V shifted(V v) {
  return _mm512_srai_epi32(v, kShift);
}

/// Adds 1 to the lanes of `counts` where |v| > most.
TX_INL void count_beyond(V& counts, V v, V most) {
  const __mmask16 beyond = _mm512_cmpgt_epi32_mask(_mm512_abs_epi32(v), most);
  counts = _mm512_mask_add_epi32(counts, beyond, counts, words32(1));
}

/// 16-bit lanes clamped to +-most, as codes.
TX_INL V clamped(V v, int16_t most) {
  return _mm512_max_epi16(_mm512_min_epi16(v, words16(most)), words16(-most));
}
TX_INL void put_codes(int8_t* p, V v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi16_epi8(v));
}
TX_INL void put_codes(int16_t* p, V v) { put(p, v); }

/// Sums of 32-bit lanes in 64 bits.
TX_INL V add_wide(V sum, V narrow) {
  return _mm512_add_epi64(
      _mm512_add_epi64(sum, _mm512_cvtepi32_epi64(_mm512_castsi512_si256(narrow))),
      _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(narrow, 1)));
}
TX_INL int64_t total(V sum) { return _mm512_reduce_add_epi64(sum); }

/// Adds the products of kLanes columns. Of bytes a 32-bit lane holds 256 sums of two; of 16-bit
/// codes not even two, so they go to 64 bits at once.
TX_INL void add_dot(const int8_t*, V& narrow, V&, V x, V z) {
  narrow = _mm512_dpwssd_epi32(narrow, x, z);
}
TX_INL void add_dot(const int16_t*, V&, V& sum, V x, V z) {
  const V two = _mm512_madd_epi16(x, z);
  sum = _mm512_add_epi64(sum, _mm512_srai_epi64(_mm512_slli_epi64(two, 32), 32));
  sum = _mm512_add_epi64(sum, _mm512_srai_epi64(two, 32));
}

}  // namespace
}  // namespace torchext::cpu
