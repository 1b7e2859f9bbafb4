// Philox for AVX-512 units: 32 or 64 words at once, in element order. From *_avx512*.cpp only.
#pragma once

#include <immintrin.h>

#include "../philox.h"

namespace torchext::cpu {

/// The words of 32*kChains elements of a stream from element 4*block on, 16 in each register.
///
/// Each 64-bit lane carries one Philox block; a state word lives in the low half and the high half
/// is garbage, which saves the shuffles between the even and odd 32-bit products. Lanes hold the
/// blocks 0 4 1 5 2 6 3 7, so that one unpack per result restores element order. Two chains run
/// side by side where one would be bound by the latency of its multiplications.
template <int kChains>
static inline void philox_chains(Key key, uint64_t block, uint32_t stream, uint32_t draw,
                                 __m512i* words) {
  __m512i c0[kChains], c1[kChains], c2[kChains], c3[kChains];
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53u), m1 = _mm512_set1_epi64(0xCD9E8D57u);
#pragma GCC unroll 2
  for (int h = 0; h < kChains; ++h) {
    const __m512i first = _mm512_set1_epi64(
        static_cast<long long>(key.offset + block + 8u * static_cast<unsigned>(h)));
    c0[h] = _mm512_add_epi64(first, _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
    c1[h] = _mm512_srli_epi64(c0[h], 32);
    c2[h] = _mm512_set1_epi64(stream);
    c3[h] = _mm512_set1_epi64(draw);
  }
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  constexpr int kXor3 = 0x96;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const __m512i key0 = _mm512_set1_epi32(static_cast<int>(k0)),
                  key1 = _mm512_set1_epi32(static_cast<int>(k1));
#pragma GCC unroll 2
    for (int h = 0; h < kChains; ++h) {
      const __m512i p0 = _mm512_mul_epu32(c0[h], m0), p1 = _mm512_mul_epu32(c2[h], m1);
      c0[h] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c1[h], key0, kXor3);
      c2[h] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c3[h], key1, kXor3);
      c1[h] = p1;
      c3[h] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  constexpr __mmask16 kHigh = 0xAAAA;
#pragma GCC unroll 2
  for (int h = 0; h < kChains; ++h) {
    const __m512i front = _mm512_mask_mov_epi32(c0[h], kHigh, _mm512_slli_epi64(c1[h], 32));
    const __m512i back = _mm512_mask_mov_epi32(c2[h], kHigh, _mm512_slli_epi64(c3[h], 32));
    words[2 * h] = _mm512_unpacklo_epi64(front, back);
    words[2 * h + 1] = _mm512_unpackhi_epi64(front, back);
  }
}

static inline void philox_64(Key key, uint64_t block, uint32_t stream, uint32_t draw,
                             __m512i* words) {
  philox_chains<2>(key, block, stream, draw, words);
}

/// unit() of 16 words.
static inline __m512 unit_16(__m512i words) {
  return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(words, 8)), _mm512_set1_ps(0x1p-24f));
}

}  // namespace torchext::cpu
