// Histograms of 16 columns at once: the bin numbers in vectors, the increments one by one (the
// columns' histograms are disjoint, but scatters are slower than scalar stores).
#include <immintrin.h>

#include "kernels/lloyd.h"

namespace torchext::cpu {
namespace {

constexpr int64_t kRun = 8;  // rows whose bins are computed before any is counted
constexpr uint64_t kOne = uint64_t{1} << 40;
constexpr int64_t kAhead = 24;  // rows of prefetch: a strip of 16 columns is one line of every row

template <bool kF64>
void run(const Sample& s, int64_t begin, int64_t end, int64_t col, int64_t cols,
         const HistogramMap& map, uint64_t* bins) noexcept {
  const auto mask = static_cast<__mmask16>((1u << cols) - 1);
  const auto mask0 = static_cast<__mmask8>(mask), mask1 = static_cast<__mmask8>(mask >> 8);
  const __m512d mu0 = _mm512_loadu_pd(map.mean), mu1 = _mm512_loadu_pd(map.mean + 8);
  const __m512d inv0 = _mm512_loadu_pd(map.inverse), inv1 = _mm512_loadu_pd(map.inverse + 8);
  const __m512 center = _mm512_loadu_ps(map.center), c = _mm512_loadu_ps(map.c);
  const __m512i shift = _mm512_loadu_si512(map.shift), base = _mm512_loadu_si512(map.base);
  const __m512i one = _mm512_set1_epi32(1), origin = _mm512_loadu_si512(map.origin);
  const __m512i room_below = _mm512_sub_epi32(origin, one);
  const __m512i room_above =
      _mm512_sub_epi32(_mm512_set1_epi32(static_cast<int>(map.bins) - 1), origin);
  const __m512i low_bits = _mm512_sub_epi32(_mm512_sllv_epi32(one, shift), one);
  const int item = kF64 ? 8 : 4;
  const auto row_of = [&](int64_t i) {
    return (s.index != nullptr ? s.index[i] : i) * s.row_stride + col;
  };
  alignas(64) uint32_t bin[kRun][kHistogramColumns], rest[kRun][kHistogramColumns];
  for (int64_t first = begin; first < end; first += kRun) {
    const int64_t stop = first + kRun < end ? first + kRun : end;
    for (int64_t i = first; i < stop; ++i) {
      const char* ahead =
          static_cast<const char*>(s.x) + row_of(i + kAhead < s.rows ? i + kAhead : i) * item;
      _mm_prefetch(ahead, _MM_HINT_T0);
      if (kF64) _mm_prefetch(ahead + 64, _MM_HINT_T0);
      __m512d x0, x1;
      if constexpr (kF64) {
        const double* x = static_cast<const double*>(s.x) + row_of(i);
        x0 = _mm512_maskz_loadu_pd(mask0, x);
        x1 = _mm512_maskz_loadu_pd(mask1, x + 8);
      } else {
        const __m512 x = _mm512_maskz_loadu_ps(mask, static_cast<const float*>(s.x) + row_of(i));
        x0 = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
        x1 = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
      }
      const __m256 a0 = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_sub_pd(x0, mu0), inv0));
      const __m256 a1 = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_sub_pd(x1, mu1), inv1));
      const __m512 away =
          _mm512_sub_ps(_mm512_insertf32x8(_mm512_castps256_ps512(a0), a1, 1), center);
      const __m512i word = _mm512_castps_si512(_mm512_add_ps(_mm512_abs_ps(away), c));
      const __mmask16 below = _mm512_cmp_ps_mask(away, _mm512_setzero_ps(), _CMP_LT_OQ);
      __m512i key = _mm512_sub_epi32(_mm512_srlv_epi32(word, shift), base);
      key = _mm512_min_epu32(key, _mm512_mask_mov_epi32(room_above, below, room_below));
      const __m512i at =
          _mm512_mask_sub_epi32(_mm512_add_epi32(origin, key), below, room_below, key);
      _mm512_store_si512(bin[i - first], at);
      _mm512_store_si512(rest[i - first], _mm512_and_si512(word, low_bits));
    }
    // Through memory on purpose: gcc would otherwise pick 32 lanes out of registers one by one.
    asm volatile("" : : "r"(bin), "r"(rest) : "memory");
    for (int64_t i = 0; i < stop - first; ++i) {
      if (cols == kHistogramColumns) {
#pragma GCC unroll 16
        for (int j = 0; j < 16; ++j) bins[j * kHistogramBins + bin[i][j]] += kOne + rest[i][j];
      } else {
        for (int64_t j = 0; j < cols; ++j)
          bins[j * kHistogramBins + bin[i][j]] += kOne + rest[i][j];
      }
    }
  }
}

}  // namespace

void histogram_avx512(const Sample& sample, int64_t begin, int64_t end, int64_t col, int64_t cols,
                      const HistogramMap& map, uint64_t* bins) noexcept {
  (sample.f64 ? run<true> : run<false>)(sample, begin, end, col, cols, map, bins);
}

}  // namespace torchext::cpu
