// Last step of the AVX-512 encoder: the sums of a tile's columns. Include from *_avx512.cpp only.
#pragma once

#include "tile_avx512.h"

namespace torchext::cpu {
namespace {

/// What the sums of a group need beside a and q.
struct Neighbours {
  alignas(64) float lower[4][kEncodeTile], upper[4][kEncodeTile];
};

/// What is summed over a column beside its moments.
enum class Extra { none, targets, dots };

/// The sums of columns c and c + 1 of the group from col; converting from memory costs half of
/// converting from a register. targets: those of the only output; dots: the columns' shares of z.
template <EncodeMode kMode, bool kWeighted, Extra kExtra>
void sum_pair(const EncodePlan& p, const EncodeTile& t, int64_t col, int64_t c,
              const Neighbours& near) noexcept {
  constexpr bool kTwice = kMode == EncodeMode::twice, kDraw = kMode != EncodeMode::nearest;
  constexpr bool kTargets = kExtra == Extra::targets, kDots = kExtra == Extra::dots;
  const __m512d zero = _mm512_setzero_pd(), half = _mm512_set1_pd(0.5);
  __m512d sum[2][kMomentSlots], target[2][kOutputSums];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 8
    for (auto& s : sum[i]) s = zero;
#pragma GCC unroll 4
    for (auto& s : target[i]) s = zero;
  }
#pragma GCC unroll 2
  for (int64_t at = 0; at < kEncodeTile; at += 8) {
    const __m512d w = kWeighted ? _mm512_loadu_pd(t.weight + at) : _mm512_set1_pd(1.0);
    const auto times = [w](__m512d x) { return kWeighted ? _mm512_mul_pd(w, x) : x; };
    const auto add_weighted = [w](__m512d* s, __m512d x) {
      *s = kWeighted ? _mm512_fmadd_pd(w, x, *s) : _mm512_add_pd(x, *s);
    };
    const auto add = [](__m512d* s, __m512d x, __m512d y) { *s = _mm512_fmadd_pd(x, y, *s); };
    __m512d z[3];
#pragma GCC unroll 3
    for (int d = 0; d < (kTwice ? 3 : 2); ++d) {
      if constexpr (kDots) z[d] = _mm512_loadu_pd(t.z + d * kEncodeTile + at);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int64_t j = col + c + i, from = j * kEncodeTile + at;
      __m512d *s = sum[i], *to = target[i];
      const __m512d a = load_wide(t.a + from), q = load_wide(t.q + from), d = _mm512_sub_pd(q, a);
      __m512d error = d, q2 = q;
      if constexpr (kTwice) {
        q2 = load_wide(t.q2 + from);
        const __m512d d2 = _mm512_sub_pd(q2, a), half_w = _mm512_mul_pd(half, w);
        add(s + kSquaredError, _mm512_mul_pd(half_w, d), d);
        add(s + kSquaredError, _mm512_mul_pd(half_w, d2), d2);
        add(s + kDecodedSquare, times(q), q2);
        add(s + kDecoded, half_w, _mm512_add_pd(q, q2));
        error = _mm512_sub_pd(_mm512_mul_pd(half, _mm512_add_pd(q, q2)), a);
      } else {
        add(s + kSquaredError, times(d), d);
        add(s + kDecodedSquare, times(q), q);
        add_weighted(s + kDecoded, q);
      }
      add(s + kExactSquare, times(a), a);
      if constexpr (kDraw) {
        const __m512d rise = _mm512_sub_pd(a, load_wide(near.lower[c + i] + at)),
                      fall = _mm512_sub_pd(load_wide(near.upper[c + i] + at), a);
        const __m512d var = _mm512_max_pd(_mm512_mul_pd(fall, rise), zero);
        add_weighted(s + kVariance, var);
        add(s + kVarianceSquare, times(var), var);
      }
      if constexpr (kTargets) {
        const __m512d y = _mm512_loadu_pd(t.y + at);
        add(to + kExactTarget, a, y);
        add(to + kErrorTarget, error, y);
      }
      if constexpr (kDots) {
        const __m512d coef = _mm512_set1_pd(p.x0[j]);
        add(z, a, coef);
        add(z + 1, q, coef);
        if constexpr (kTwice) add(z + 2, q2, coef);
      }
    }
#pragma GCC unroll 3
    for (int d = 0; d < (kTwice ? 3 : 2); ++d) {
      if constexpr (kDots) _mm512_storeu_pd(t.z + d * kEncodeTile + at, z[d]);
    }
  }
  double* out = t.moments + (col + c) * kMomentSlots;
  if constexpr (kDraw) {
    add_to(out, join_lanes_ordered(sum[0]));
    add_to(out + kMomentSlots, join_lanes_ordered(sum[1]));
  } else {  // four sums a column: both are joined at once and take their slots
    constexpr int kUsed[4] = {kSquaredError, kExactSquare, kDecodedSquare, kDecoded};
    constexpr __mmask8 kSlots =
        1 << kSquaredError | 1 << kExactSquare | 1 << kDecodedSquare | 1 << kDecoded;
    __m512d both[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) both[k] = sum[k / 4][kUsed[k % 4]];
    const __m512d joined = join_lanes_ordered(both);
    add_to(out, _mm512_maskz_expand_pd(kSlots, joined));
    add_to(out + kMomentSlots,
           _mm512_maskz_expand_pd(kSlots, _mm512_shuffle_f64x2(joined, joined, 0xEE)));
  }
  if constexpr (kTargets) {
    __m512d both[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) both[k] = target[k / kOutputSums][k % kOutputSums];
    add_to(t.targets + (col + c) * kOutputSums, join_lanes_ordered(both));
  }
}

using SumPair = void(const EncodePlan&, const EncodeTile&, int64_t, int64_t,
                     const Neighbours&) noexcept;

template <EncodeMode kMode, Extra kExtra>
SumPair* sum_of(bool weighted) {
  return weighted ? sum_pair<kMode, true, kExtra> : sum_pair<kMode, false, kExtra>;
}

/// z += x0 * values over columns [begin, end) for every output, in column order.
inline void add_dots(const EncodePlan& p, const EncodeTile& t, int64_t begin, int64_t end) {
  const float* values[3] = {t.a, t.q, t.q2};
  const int draws = p.mode == EncodeMode::twice ? 3 : 2;
  for (int64_t o = 0; o < p.outputs; ++o) {
    const double* coef = p.x0 + o * p.padded;
    for (int d = 0; d < draws; ++d) {
      double* z = t.z + (3 * o + d) * kEncodeTile;
      __m512d sum[2 * kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < 2 * kVectors; ++v) sum[v] = _mm512_loadu_pd(z + 8 * v);
      for (int64_t j = begin; j < end; ++j) {
        const __m512d c = _mm512_set1_pd(coef[j]);
        const float* x = values[d] + j * kEncodeTile;
#pragma GCC unroll 8
        for (int v = 0; v < 2 * kVectors; ++v) {
          sum[v] = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_load_ps(x + 8 * v)), c, sum[v]);
        }
      }
#pragma GCC unroll 8
      for (int v = 0; v < 2 * kVectors; ++v) _mm512_storeu_pd(z + 8 * v, sum[v]);
    }
  }
}

}  // namespace
}  // namespace torchext::cpu
