// First step of the AVX-512 encoder: 16 columns of a tile, scaled and transposed. Include from
// *_avx512.cpp only.
#pragma once

#include "tile_avx512.h"

namespace torchext::cpu {
namespace {

/// d / scale as IEEE division rounds it, for finite d and `inverse` the rounded 1 / scale: the
/// product is within two units in the last place, a first correction by the exact remainder within
/// one, and from there a second one rounds correctly (Markstein, IBM J. Res. Dev. 34, 1990). -0 may
/// come out as +0. Bounds on `scale` that keep all of it in range: quotient_by_inverse in encode.h.
inline __m512d quotient(__m512d d, __m512d scale, __m512d inverse) {
  __m512d q = _mm512_mul_pd(d, inverse);
  q = _mm512_fmadd_pd(_mm512_fnmadd_pd(q, scale, d), inverse, q);
  return _mm512_fmadd_pd(_mm512_fnmadd_pd(q, scale, d), inverse, q);
}

template <class T, bool kWhole>
inline __m512d load8(const T* x, unsigned mask) {
  const auto some = static_cast<__mmask8>(mask);
  if constexpr (sizeof(T) == 8) {
    return kWhole ? _mm512_loadu_pd(x) : _mm512_maskz_loadu_pd(some, x);
  } else {
    return _mm512_cvtps_pd(kWhole ? _mm256_loadu_ps(x) : _mm256_maskz_loadu_ps(some, x));
  }
}

/// Rows 16 v .. 16 v + 15 of 16 columns from col: scaled values a, transposed into tile.a. Without
/// kDivide by the inverse, and false if a value is not finite: then it is a division's to answer.
template <class T, bool kWhole, bool kDivide>
inline bool scale_rows(const EncodePlan& p, const EncodeTile& t, int64_t col, int v) {
  const unsigned mask = kWhole ? 0xFFFF : (1u << (p.cols - col)) - 1;
  __m512d mean[2], scale[2], inverse[2];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    mean[h] = _mm512_loadu_pd(p.mean + col + 8 * h);
    scale[h] = _mm512_loadu_pd(p.scale + col + 8 * h);
    if constexpr (!kDivide) inverse[h] = _mm512_loadu_pd(p.inverse_scale + col + 8 * h);
  }
  __m512 a[16], zero = _mm512_setzero_ps();  // stays zero while all values are finite
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const int64_t row = 16 * v + i < t.rows ? 16 * v + i : 0;  // missing rows repeat the first
    const T* x = static_cast<const T*>(t.x) + row * t.row_stride + col;
    __m256 half[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m512d d = _mm512_sub_pd(load8<T, kWhole>(x + 8 * h, mask >> (8 * h)), mean[h]);
      if constexpr (kDivide) {
        half[h] = _mm512_cvtpd_ps(_mm512_div_pd(d, scale[h]));
      } else {
        half[h] = _mm512_cvtpd_ps(quotient(d, scale[h], inverse[h]));
      }
    }
    a[i] = _mm512_insertf32x8(_mm512_castps256_ps512(half[0]), half[1], 1);
    if constexpr (!kDivide) zero = _mm512_fmadd_ps(a[i], _mm512_setzero_ps(), zero);
  }
  transpose_16x16(a);
#pragma GCC unroll 16
  for (int c = 0; c < 16; ++c) _mm512_store_ps(t.a + (col + c) * kEncodeTile + 16 * v, a[c]);
  return kDivide || _mm512_cmp_ps_mask(zero, zero, _CMP_UNORD_Q) == 0;
}

template <class T, bool kWhole>
inline void scale_columns(const EncodePlan& p, const EncodeTile& t, int64_t col) {
  for (int v = 0; v < kVectors; ++v) {
    if (p.inverse_scale == nullptr || !scale_rows<T, kWhole, false>(p, t, col, v))
      scale_rows<T, kWhole, true>(p, t, col, v);
  }
}

inline void scale_columns(const EncodePlan& p, const EncodeTile& t, int64_t col) {
  if (p.cols - col >= 16) {
    (t.f64 ? scale_columns<double, true> : scale_columns<float, true>)(p, t, col);
  } else {
    (t.f64 ? scale_columns<double, false> : scale_columns<float, false>)(p, t, col);
  }
}

}  // namespace
}  // namespace torchext::cpu
