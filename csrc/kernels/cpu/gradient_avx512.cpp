// Sums of one output over a tile with AVX-512, once the slopes at the anchor are known.
#include "tile_avx512.h"

namespace torchext::cpu {
namespace {

/// Sums of two columns; kTwice: two decoded values.
template <bool kTwice, bool kAnchor>
inline void gradient_columns(const GradientTile& t, int64_t col, int64_t columns) {
  constexpr int64_t kAhead = 4 * kEncodeTile;
  __m512d sum[8];
#pragma GCC unroll 8
  for (auto& s : sum) s = _mm512_setzero_pd();
  for (int v = 0; v < 8; ++v) {
    const __m512d y = _mm512_loadu_pd(t.y + 8 * v);
    const __m512d e = kAnchor ? _mm512_loadu_pd(t.e + 8 * v) : y,
                  eq = kAnchor ? _mm512_loadu_pd(t.eq + 8 * v) : y;
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      const int64_t at = (col + (c < columns ? c : 0)) * kEncodeTile + 8 * v;
      const __m512d a = load_wide(t.a + at), q = load_wide(t.q + at);
      if (v % 2 == 0) {
        _mm_prefetch(reinterpret_cast<const char*>(t.a + at + kAhead), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(t.q + at + kAhead), _MM_HINT_T0);
      }
      __m512d* s = sum + 4 * c;
      __m512d decoded = q, q2 = q;
      if constexpr (kTwice) {
        q2 = _mm512_cvtps_pd(_mm256_load_ps(t.q2 + at));
        decoded = _mm512_mul_pd(_mm512_set1_pd(0.5), _mm512_add_pd(q, q2));
      }
      s[kExactTarget] = _mm512_fmadd_pd(a, y, s[kExactTarget]);
      s[kErrorTarget] = _mm512_fmadd_pd(_mm512_sub_pd(decoded, a), y, s[kErrorTarget]);
      if constexpr (kAnchor) {
        s[kExactGradient] = _mm512_fmadd_pd(a, e, s[kExactGradient]);
        s[kDecodedGradient] = _mm512_fmadd_pd(q, eq, s[kDecodedGradient]);
        if constexpr (kTwice) {
          s[kDecodedGradient] =
              _mm512_fmadd_pd(q2, _mm512_loadu_pd(t.eq2 + 8 * v), s[kDecodedGradient]);
        }
      }
    }
  }
  const auto mask = static_cast<__mmask8>(columns > 1 ? 0xFF : 0x0F);
  double* out = t.out + col * kOutputSums;
  const __m512d old = _mm512_maskz_loadu_pd(mask, out);
  _mm512_mask_storeu_pd(out, mask, _mm512_add_pd(old, join_lanes_ordered(sum)));
}

template <bool kTwice, bool kAnchor>
void run_gradient(const GradientTile& t, int64_t cols) noexcept {
  for (int64_t j = 0; j < cols; j += 2) gradient_columns<kTwice, kAnchor>(t, j, cols - j);
}

}  // namespace

void gradient_tile_avx512(const GradientTile& t, int64_t cols) noexcept {
  if (t.q2 != nullptr) {
    (t.e != nullptr ? run_gradient<true, true> : run_gradient<true, false>)(t, cols);
  } else {
    (t.e != nullptr ? run_gradient<false, true> : run_gradient<false, false>)(t, cols);
  }
}

}  // namespace torchext::cpu
