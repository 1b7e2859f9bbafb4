// Philox for AVX2 units: 16 words at once, in element order. Include from *_avx2.cpp only.
#pragma once

#include <immintrin.h>

#include "../philox.h"

namespace torchext::cpu {

/// The words of elements 4*block .. 4*block+15 of a stream, 8 in w0 and the next 8 in w1.
///
/// One Philox block per 64-bit lane as in philox_avx512.h, in the order 0 2 1 3.
static inline void philox_16(Key key, uint64_t block, uint32_t stream, uint32_t draw, __m256i* w0,
                             __m256i* w1) {
  const __m256i first = _mm256_set1_epi64x(static_cast<long long>(key.offset + block));
  __m256i c0 = _mm256_add_epi64(first, _mm256_setr_epi64x(0, 2, 1, 3));
  __m256i c1 = _mm256_srli_epi64(c0, 32);
  __m256i c2 = _mm256_set1_epi64x(stream), c3 = _mm256_set1_epi64x(draw);
  const __m256i m0 = _mm256_set1_epi64x(0xD2511F53u), m1 = _mm256_set1_epi64x(0xCD9E8D57u);
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const __m256i p0 = _mm256_mul_epu32(c0, m0), p1 = _mm256_mul_epu32(c2, m1);
    c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1), _mm256_set1_epi64x(k0));
    c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3), _mm256_set1_epi64x(k1));
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const __m256i front = _mm256_blend_epi32(c0, _mm256_slli_epi64(c1, 32), 0xAA);
  const __m256i back = _mm256_blend_epi32(c2, _mm256_slli_epi64(c3, 32), 0xAA);
  *w0 = _mm256_unpacklo_epi64(front, back);
  *w1 = _mm256_unpackhi_epi64(front, back);
}

/// unit() of 8 words.
static inline __m256 unit_8(__m256i words) {
  return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(words, 8)), _mm256_set1_ps(0x1p-24f));
}

}  // namespace torchext::cpu
