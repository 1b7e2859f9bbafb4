// Column statistics with AVX2; the structure is that of column_stats_avx512.cpp.
#include <immintrin.h>

#include "kernels/column_stats.h"

namespace torchext::cpu {
namespace {

template <bool kF64>
inline __m256d load4(const void* base, int64_t at) {
  if constexpr (kF64) return _mm256_loadu_pd(static_cast<const double*>(base) + at);
  return _mm256_cvtps_pd(_mm_loadu_ps(static_cast<const float*>(base) + at));
}

template <bool kF64, int kRows>
inline void add_rows(const ColumnBlock& b, int64_t row, int64_t begin, int64_t end, double* sum,
                     double* lo, double* hi) {
  for (int64_t j = begin; j < end; j += 4) {
    __m256d s = _mm256_loadu_pd(sum + j), l = _mm256_loadu_pd(lo + j), h = _mm256_loadu_pd(hi + j);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256d x = load4<kF64>(b.x, (row + r) * b.row_stride + j);
      s = _mm256_add_pd(s, x);
      l = _mm256_min_pd(x, l);
      h = _mm256_max_pd(x, h);
    }
    _mm256_storeu_pd(sum + j, s);
    _mm256_storeu_pd(lo + j, l);
    _mm256_storeu_pd(hi + j, h);
  }
}

template <bool kF64>
void run(const ColumnBlock& b, int64_t row, int64_t rows, int64_t begin, int64_t end, double* sum,
         double* lo, double* hi) noexcept {
  constexpr int kRows = 8;
  const int64_t whole = begin + (end - begin) / 4 * 4;
  int64_t r = row;
  for (; r + kRows <= row + rows; r += kRows)
    add_rows<kF64, kRows>(b, r, begin, whole, sum, lo, hi);
  for (; r < row + rows; ++r) add_rows<kF64, 1>(b, r, begin, whole, sum, lo, hi);
  if (whole < end) column_stats_ref(b, row, rows, whole, end, sum, lo, hi);
}

}  // namespace

void column_stats_avx2(const ColumnBlock& block, int64_t row, int64_t rows, int64_t begin,
                       int64_t end, double* sum, double* lo, double* hi) noexcept {
  (block.f64 ? run<true> : run<false>)(block, row, rows, begin, end, sum, lo, hi);
}

}  // namespace torchext::cpu
