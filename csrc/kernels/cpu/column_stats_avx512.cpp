// Column statistics with AVX-512: 16 columns a step, four rows at a time so that the running sums,
// which live in memory, are loaded and stored once per four rows. The order of additions is the row
// order.
#include <immintrin.h>

#include "kernels/column_stats.h"

namespace torchext::cpu {
namespace {

struct Pair {
  __m512d lo, hi;
};

template <bool kF64>
inline Pair load(const void* base, int64_t at, __mmask16 mask) {
  if constexpr (kF64) {
    const double* x = static_cast<const double*>(base) + at;
    return {_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), x),
            _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask >> 8), x + 8)};
  } else {
    const __m512 x = _mm512_maskz_loadu_ps(mask, static_cast<const float*>(base) + at);
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
            _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
  }
}

template <bool kF64, int kRows>
inline void add_rows(const ColumnBlock& b, int64_t row, int64_t begin, int64_t end, double* sum,
                     double* lo, double* hi) {
  for (int64_t j = begin; j < end; j += 16) {
    const int64_t left = end - j;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1);
    const auto m0 = static_cast<__mmask8>(mask), m1 = static_cast<__mmask8>(mask >> 8);
    __m512d s0 = _mm512_maskz_loadu_pd(m0, sum + j), s1 = _mm512_maskz_loadu_pd(m1, sum + j + 8);
    __m512d l0 = _mm512_maskz_loadu_pd(m0, lo + j), l1 = _mm512_maskz_loadu_pd(m1, lo + j + 8);
    __m512d h0 = _mm512_maskz_loadu_pd(m0, hi + j), h1 = _mm512_maskz_loadu_pd(m1, hi + j + 8);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      // Rows are too short for the hardware to follow: the same columns of the next rows.
      const int64_t ahead = (row + r + kRows) * b.row_stride + j;
      const char* next = static_cast<const char*>(b.x) + ahead * (kF64 ? 8 : 4);
      _mm_prefetch(next, _MM_HINT_T1);
      if constexpr (kF64) _mm_prefetch(next + 64, _MM_HINT_T1);
      const Pair x = load<kF64>(b.x, (row + r) * b.row_stride + j, mask);
      s0 = _mm512_add_pd(s0, x.lo);
      s1 = _mm512_add_pd(s1, x.hi);
      l0 = _mm512_min_pd(x.lo, l0);
      l1 = _mm512_min_pd(x.hi, l1);
      h0 = _mm512_max_pd(x.lo, h0);
      h1 = _mm512_max_pd(x.hi, h1);
    }
    _mm512_mask_storeu_pd(sum + j, m0, s0);
    _mm512_mask_storeu_pd(sum + j + 8, m1, s1);
    _mm512_mask_storeu_pd(lo + j, m0, l0);
    _mm512_mask_storeu_pd(lo + j + 8, m1, l1);
    _mm512_mask_storeu_pd(hi + j, m0, h0);
    _mm512_mask_storeu_pd(hi + j + 8, m1, h1);
  }
}

template <bool kF64>
void run(const ColumnBlock& b, int64_t row, int64_t rows, int64_t begin, int64_t end, double* sum,
         double* lo, double* hi) noexcept {
  constexpr int kRows = 8;
  int64_t r = row;
  for (; r + kRows <= row + rows; r += kRows) add_rows<kF64, kRows>(b, r, begin, end, sum, lo, hi);
  for (; r < row + rows; ++r) add_rows<kF64, 1>(b, r, begin, end, sum, lo, hi);
}

}  // namespace

void column_stats_avx512(const ColumnBlock& block, int64_t row, int64_t rows, int64_t begin,
                         int64_t end, double* sum, double* lo, double* hi) noexcept {
  (block.f64 ? run<true> : run<false>)(block, row, rows, begin, end, sum, lo, hi);
}

}  // namespace torchext::cpu
