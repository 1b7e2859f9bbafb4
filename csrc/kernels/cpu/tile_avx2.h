// Building blocks of the AVX2 encoder: transposition, table search, sums and packing of one tile.
// Include from *_avx2.cpp only. A register holds 8 rows of one column, or 4 rows in double.
#pragma once

#include <immintrin.h>

#include "kernels/encode.h"

namespace torchext::cpu {
namespace {

/// Rows of 8 columns -> columns of 8 rows.
inline void transpose_8x8(__m256* r) {
  __m256 t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x20);
    r[4 + i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x31);
  }
}

inline __m256d low_half(__m256 x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
inline __m256d high_half(__m256 x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
inline __m256d load4(const double* x) { return _mm256_loadu_pd(x); }
inline __m256d load4(const float* x) { return _mm256_cvtps_pd(_mm_loadu_ps(x)); }

/// The eight lanes of a sum: rows 0-3 and 4-7 of every 8.
struct Lanes {
  __m256d lo, hi;
};

/// The lane sums of four accumulators in the order of the definition: lanes join by 4, 2, 1.
inline __m256d join_lanes(const Lanes* s) {
  __m256d p[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) p[i] = _mm256_add_pd(s[i].lo, s[i].hi);
  const __m256d ab = _mm256_add_pd(_mm256_permute2f128_pd(p[0], p[1], 0x20),
                                   _mm256_permute2f128_pd(p[0], p[1], 0x31));
  const __m256d cd = _mm256_add_pd(_mm256_permute2f128_pd(p[2], p[3], 0x20),
                                   _mm256_permute2f128_pd(p[2], p[3], 0x31));
  return _mm256_permute4x64_pd(_mm256_hadd_pd(ab, cd), 0xD8);
}

inline void add_joined(double* out, const Lanes* s) {
  _mm256_storeu_pd(out, _mm256_add_pd(_mm256_loadu_pd(out), join_lanes(s)));
}

/// table[index], a table of 2^kLog entries (8 if fewer); more than 16 are gathered.
template <int kLog>
inline __m256 lookup(const float* table, __m256i index) {
  if constexpr (kLog <= 3) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
  } else if constexpr (kLog == 4) {
    const __m256 lo = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
    const __m256 hi = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index);
    return _mm256_blendv_ps(lo, hi, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  } else {
    return _mm256_i32gather_ps(table, index, 4);
  }
}

/// Number of thresholds below each value; thresholds in Eytzinger order, nodes 8..15 in one
/// register.
template <int kSteps>
inline __m256i search(__m256 a, const float* thresholds) {
  __m256i node = _mm256_set1_epi32(1);
#pragma GCC unroll 8
  for (int depth = 0; depth < kSteps; ++depth) {
    const __m256 t = depth < 3    ? lookup<3>(thresholds, node)
                     : depth == 3 ? lookup<3>(thresholds + 8, node)
                                  : lookup<8>(thresholds, node);
    const __m256i up = _mm256_castps_si256(_mm256_cmp_ps(a, t, _CMP_GT_OQ));
    node = _mm256_sub_epi32(_mm256_add_epi32(node, node), up);
  }
  return _mm256_sub_epi32(node, _mm256_set1_epi32(1 << kSteps));
}

/// Packs one byte-wide plane group: word[k] holds rows 8k .. 8k+7, byte c column c of the group.
/// Writes the planes of the low `bits` <= 8 bits of every byte; returns the end of what it wrote.
inline uint8_t* pack_group(const __m256i* word, int bits, uint8_t* out) {
  for (int shift = 0; shift < bits;) {
    const int rest = bits - shift, width = rest >= 8 ? 8 : rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
    const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << width) - 1));
    const int fields = 8 / width,
              vectors = width;  // out vector i is made of words i, i + width, ..
    for (int i = 0; i < vectors; ++i) {
      __m256i line = _mm256_setzero_si256();
      for (int f = 0; f < fields; ++f) {
        // 4 bits: lines of 32 rows, so that words 0 1 | 2 3 make line 0 and 4 5 | 6 7 line 1
        const int k = width == 8 ? i : width == 4 ? 4 * (i / 2) + i % 2 + 2 * f : i + width * f;
        const __m256i field =
            _mm256_and_si256(_mm256_srl_epi32(word[k], _mm_cvtsi32_si128(shift)), mask);
        line = _mm256_or_si256(line, _mm256_sll_epi32(field, _mm_cvtsi32_si128(width * f)));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * i), line);
    }
    out += 32 * width;
    shift += width;
  }
  return out;
}

/// The four words of the Philox blocks row * row_blocks + group of 8 rows: words[c] has column c
/// (mod 4) of rows 0..7.
/// 64-bit lanes carry one row each, even rows in one chain and odd rows in the other; only their
/// low halves count.
inline void philox_rows(Key key, uint64_t group, uint64_t row_blocks, const int64_t* rows,
                        uint32_t draw, __m256i* words) {
  __m256i c0[2], c1[2], c2[2], c3[2];
  const __m256i m0 = _mm256_set1_epi64x(0xD2511F53u), m1 = _mm256_set1_epi64x(0xCD9E8D57u);
  for (int h = 0; h < 2; ++h) {
    const auto block = [&](int i) {
      return static_cast<long long>(key.offset + group +
                                    static_cast<uint64_t>(rows[2 * i + h]) * row_blocks);
    };
    c0[h] = _mm256_setr_epi64x(block(0), block(1), block(2), block(3));
    c1[h] = _mm256_srli_epi64(c0[h], 32);
    c2[h] = _mm256_setzero_si256();
    c3[h] = _mm256_set1_epi64x(draw);
  }
  auto k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const __m256i key0 = _mm256_set1_epi32(static_cast<int>(k0)),
                  key1 = _mm256_set1_epi32(static_cast<int>(k1));
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i p0 = _mm256_mul_epu32(c0[h], m0), p1 = _mm256_mul_epu32(c2[h], m1);
      c0[h] = _mm256_xor_si256(_mm256_srli_epi64(p1, 32), _mm256_xor_si256(c1[h], key0));
      c2[h] = _mm256_xor_si256(_mm256_srli_epi64(p0, 32), _mm256_xor_si256(c3[h], key1));
      c1[h] = p1;
      c3[h] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = _mm256_blend_epi32(c0[0], _mm256_slli_epi64(c0[1], 32), 0xAA);
  words[1] = _mm256_blend_epi32(c1[0], _mm256_slli_epi64(c1[1], 32), 0xAA);
  words[2] = _mm256_blend_epi32(c2[0], _mm256_slli_epi64(c2[1], 32), 0xAA);
  words[3] = _mm256_blend_epi32(c3[0], _mm256_slli_epi64(c3[1], 32), 0xAA);
}

/// Uniforms in [0, 1) of 8 words.
inline __m256 unit_rows(__m256i words) {
  return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(words, 8)), _mm256_set1_ps(0x1p-24f));
}

/// Lane mask of the first `count` of 8.
inline __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count > 8   ? 8
                                              : count < 0 ? 0
                                                          : static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

}  // namespace
}  // namespace torchext::cpu
