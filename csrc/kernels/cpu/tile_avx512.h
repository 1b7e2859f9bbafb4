// Building blocks of the AVX-512 encoder: transposition, table search, sums and packing of one
// tile. Include from *_avx512.cpp only. A register holds 16 rows of one column.
#pragma once

#include <immintrin.h>

#include "kernels/encode.h"

namespace torchext::cpu {
namespace {

constexpr int kVectors = 4;  // registers of a tile's column

/// Rows of 16 columns -> columns of 16 rows.
__attribute__((always_inline)) inline void transpose_16x16(__m512* r) {
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
    const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4;
       ++i) {  // r[4k + i] has columns i, 4+i, 8+i, 12+i of rows 4k .. 4k+3 in its lanes
    const __m512 lo = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88),
                 hi = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xDD);
    const __m512 lo2 = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
    const __m512 hi2 = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xDD);
    t[i] = _mm512_shuffle_f32x4(lo, lo2, 0x88);
    t[8 + i] = _mm512_shuffle_f32x4(lo, lo2, 0xDD);
    t[4 + i] = _mm512_shuffle_f32x4(hi, hi2, 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(hi, hi2, 0xDD);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

inline __m512d low_half(__m512 x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
inline __m512d high_half(__m512 x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }

inline __m512d load_wide(const float* x) { return _mm512_cvtps_pd(_mm256_load_ps(x)); }

inline void add_to(double* out, __m512d x) {
  _mm512_storeu_pd(out, _mm512_add_pd(_mm512_loadu_pd(out), x));
}

/// The lane sums of eight accumulators in the order of the definition (lanes join by 4, 2, 1):
/// results 0 4 1 5 2 6 3 7.
__attribute__((always_inline)) inline __m512d join_lanes(const __m512d* s) {
  __m512d p[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512d a = s[2 * i], b = s[2 * i + 1];
    p[i] = _mm512_add_pd(_mm512_shuffle_f64x2(a, b, 0x44), _mm512_shuffle_f64x2(a, b, 0xEE));
  }
  const __m512d q0 =
      _mm512_add_pd(_mm512_shuffle_f64x2(p[0], p[1], 0x88), _mm512_shuffle_f64x2(p[0], p[1], 0xDD));
  const __m512d q1 =
      _mm512_add_pd(_mm512_shuffle_f64x2(p[2], p[3], 0x88), _mm512_shuffle_f64x2(p[2], p[3], 0xDD));
  return _mm512_add_pd(_mm512_unpacklo_pd(q0, q1), _mm512_unpackhi_pd(q0, q1));
}

/// join_lanes with the results in their natural order.
__attribute__((always_inline)) inline __m512d join_lanes_ordered(const __m512d* s) {
  return _mm512_permutexvar_pd(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), join_lanes(s));
}

/// table[index & (2^kLog - 1)], kLog >= 4.
template <int kLog>
inline __m512 lookup(const float* table, __m512i index) {
  if constexpr (kLog == 4) {
    return _mm512_permutexvar_ps(index, _mm512_loadu_ps(table));
  } else if constexpr (kLog == 5) {
    return _mm512_permutex2var_ps(_mm512_loadu_ps(table), index, _mm512_loadu_ps(table + 16));
  } else {
    constexpr int kHalf = 1 << (kLog - 1);
    const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(kHalf));
    return _mm512_mask_mov_ps(lookup<kLog - 1>(table, index), upper,
                              lookup<kLog - 1>(table + kHalf, index));
  }
}

/// One level of the search: node = 2*node + (a > thresholds[node]), nodes 2^kDepth ..
/// 2^(kDepth+1)-1.
template <int kDepth>
inline __m512i descend(__m512 a, const float* thresholds, __m512i node) {
  __m512 t;
  if constexpr (kDepth < 4) {
    t = lookup<4>(thresholds, node);  // all nodes below 16 are in the first register
  } else {
    t = lookup<kDepth>(thresholds + (1 << kDepth), node);
  }
  const __mmask16 up = _mm512_cmp_ps_mask(a, t, _CMP_GT_OQ);
  const __m512i twice = _mm512_add_epi32(node, node);
  return _mm512_mask_add_epi32(twice, up, twice, _mm512_set1_epi32(1));
}

/// Number of thresholds below each value.
template <int kSteps>
inline __m512i search(__m512 a, const float* thresholds) {
  const auto one = [thresholds](int node) { return _mm512_set1_ps(thresholds[node]); };
  const __mmask16 up = _mm512_cmp_ps_mask(a, one(1), _CMP_GT_OQ);
  __m512i node = _mm512_mask_mov_epi32(_mm512_set1_epi32(2), up, _mm512_set1_epi32(3));
  if constexpr (kSteps > 1) {  // two thresholds need no permute
    const __m512 t = _mm512_mask_mov_ps(one(2), up, one(3));
    const __mmask16 up2 = _mm512_cmp_ps_mask(a, t, _CMP_GT_OQ);
    node = _mm512_mask_mov_epi32(_mm512_set1_epi32(4), up, _mm512_set1_epi32(6));
    node = _mm512_mask_or_epi32(node, up2, node, _mm512_set1_epi32(1));
  }
  if constexpr (kSteps > 2) node = descend<2>(a, thresholds, node);
  if constexpr (kSteps > 3) node = descend<3>(a, thresholds, node);
  if constexpr (kSteps > 4) node = descend<4>(a, thresholds, node);
  if constexpr (kSteps > 5) node = descend<5>(a, thresholds, node);
  if constexpr (kSteps > 6) node = descend<6>(a, thresholds, node);
  if constexpr (kSteps > 7) node = descend<7>(a, thresholds, node);
  return _mm512_sub_epi32(node, _mm512_set1_epi32(1 << kSteps));
}

/// Packs one byte-wide plane group: word[v] holds rows 16v .. 16v+15, byte c column c of the group.
/// Writes the planes of the low `bits` <= 8 bits of every byte; returns the end of what it wrote.
inline uint8_t* pack_group(const __m512i* word, int bits, uint8_t* out) {
  for (int shift = 0; shift < bits;) {
    const int rest = bits - shift, width = rest >= 8 ? 8 : rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
    const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << width) - 1));
    __m512i f[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      f[v] = _mm512_and_si512(_mm512_srl_epi32(word[v], _mm_cvtsi32_si128(shift)), mask);
    }
    if (width == 8) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) _mm512_storeu_si512(out + 64 * v, f[v]);
    } else if (width == 4) {
      _mm512_storeu_si512(out, _mm512_or_si512(f[0], _mm512_slli_epi32(f[1], 4)));
      _mm512_storeu_si512(out + 64, _mm512_or_si512(f[2], _mm512_slli_epi32(f[3], 4)));
    } else {
      const __m512i low = _mm512_or_si512(f[0], _mm512_slli_epi32(f[1], 2));
      const __m512i high = _mm512_or_si512(_mm512_slli_epi32(f[2], 4), _mm512_slli_epi32(f[3], 6));
      const __m512i line = _mm512_or_si512(low, high);
      if (width == 2) {
        _mm512_storeu_si512(out, line);
      } else {  // 8 rows a field: the upper halves of the registers are the odd fields
        const __m256i odd = _mm256_slli_epi32(_mm512_extracti64x4_epi64(line, 1), 1);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                            _mm256_or_si256(_mm512_castsi512_si256(line), odd));
      }
    }
    out += 32 * width;
    shift += width;
  }
  return out;
}

/// The four words of the Philox blocks row * row_blocks + group of 16 rows: words[c][row], c =
/// column mod 4. 64-bit lanes carry one row each, even rows in one chain and odd rows in the other;
/// the low half of a lane is the state word and the high half is garbage, so that products need no
/// shuffles.
inline void philox_rows(Key key, uint64_t group, uint64_t row_blocks, const int64_t* rows,
                        uint32_t draw, __m512i* words) {
  __m512i c0[2], c1[2], c2[2], c3[2];
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53u), m1 = _mm512_set1_epi64(0xCD9E8D57u);
  const __m512i stride = _mm512_set1_epi64(static_cast<long long>(row_blocks));
  const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), one = _mm512_set1_epi64(1);
  const __m512i base = _mm512_set1_epi64(static_cast<long long>(key.offset + group));
  const __m512i low = _mm512_loadu_si512(rows), high = _mm512_loadu_si512(rows + 8);
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m512i pick = h == 0 ? even : _mm512_add_epi64(even, one);
    const __m512i row = _mm512_permutex2var_epi64(low, pick, high);
    c0[h] = _mm512_add_epi64(base, _mm512_mullo_epi64(row, stride));
    c1[h] = _mm512_srli_epi64(c0[h], 32);
    c2[h] = _mm512_setzero_si512();
    c3[h] = _mm512_set1_epi64(draw);
  }
  auto k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const __m512i key0 = _mm512_set1_epi32(static_cast<int>(k0)),
                  key1 = _mm512_set1_epi32(static_cast<int>(k1));
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m512i p0 = _mm512_mul_epu32(c0[h], m0), p1 = _mm512_mul_epu32(c2[h], m1);
      c0[h] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c1[h], key0, 0x96);
      c2[h] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c3[h], key1, 0x96);
      c1[h] = p1;
      c3[h] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  constexpr __mmask16 kOdd = 0xAAAA;
  words[0] = _mm512_mask_mov_epi32(c0[0], kOdd, _mm512_slli_epi64(c0[1], 32));
  words[1] = _mm512_mask_mov_epi32(c1[0], kOdd, _mm512_slli_epi64(c1[1], 32));
  words[2] = _mm512_mask_mov_epi32(c2[0], kOdd, _mm512_slli_epi64(c2[1], 32));
  words[3] = _mm512_mask_mov_epi32(c3[0], kOdd, _mm512_slli_epi64(c3[1], 32));
}

/// Uniforms in [0, 1) of 16 words.
inline __m512 unit_rows(__m512i words) {
  return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(words, 8)), _mm512_set1_ps(0x1p-24f));
}

}  // namespace
}  // namespace torchext::cpu
