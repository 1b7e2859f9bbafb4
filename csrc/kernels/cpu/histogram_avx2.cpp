// Histograms of 16 columns with AVX2; the structure is that of histogram_avx512.cpp, in two halves.
#include <immintrin.h>

#include "kernels/lloyd.h"

namespace torchext::cpu {
namespace {

constexpr int64_t kRun = 8;     // rows whose bins are computed before any is counted
constexpr int64_t kAhead = 24;  // rows of prefetch
constexpr uint64_t kOne = uint64_t{1} << 40;

inline __m256i load(const uint32_t* x) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}
inline void store(uint32_t* x, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(x), v); }

/// Bins and low bits of 8 columns from k of the strip.
inline void place(const double* x, const HistogramMap& map, int k, uint32_t* bin, uint32_t* rest) {
  __m128 a[2];
  for (int h = 0; h < 2; ++h) {
    const __m256d d =
        _mm256_sub_pd(_mm256_loadu_pd(x + k + 4 * h), _mm256_loadu_pd(map.mean + k + 4 * h));
    a[h] = _mm256_cvtpd_ps(_mm256_mul_pd(d, _mm256_loadu_pd(map.inverse + k + 4 * h)));
  }
  const __m256i one = _mm256_set1_epi32(1), origin = load(map.origin + k),
                shift = load(map.shift + k);
  const __m256 away = _mm256_sub_ps(_mm256_set_m128(a[1], a[0]), _mm256_loadu_ps(map.center + k));
  const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), away);
  const __m256i word = _mm256_castps_si256(_mm256_add_ps(size, _mm256_loadu_ps(map.c + k)));
  const __m256 below = _mm256_cmp_ps(away, _mm256_setzero_ps(), _CMP_LT_OQ);
  const __m256i room_below = _mm256_sub_epi32(origin, one);
  const __m256i room_above =
      _mm256_sub_epi32(_mm256_set1_epi32(static_cast<int>(map.bins) - 1), origin);
  const auto choose = [below](__m256i above, __m256i under) {
    return _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(above), _mm256_castsi256_ps(under), below));
  };
  __m256i key = _mm256_sub_epi32(_mm256_srlv_epi32(word, shift), load(map.base + k));
  key = _mm256_min_epu32(key, choose(room_above, room_below));
  store(bin + k, choose(_mm256_add_epi32(origin, key), _mm256_sub_epi32(room_below, key)));
  store(rest + k, _mm256_and_si256(word, _mm256_sub_epi32(_mm256_sllv_epi32(one, shift), one)));
}

}  // namespace

void histogram_avx2(const Sample& s, int64_t begin, int64_t end, int64_t col, int64_t cols,
                    const HistogramMap& map, uint64_t* bins) noexcept {
  const auto row_of = [&](int64_t i) {
    return (s.index != nullptr ? s.index[i] : i) * s.row_stride + col;
  };
  alignas(64) uint32_t bin[kRun][kHistogramColumns], rest[kRun][kHistogramColumns];
  alignas(64) double x[kHistogramColumns] = {};
  for (int64_t first = begin; first < end; first += kRun) {
    const int64_t stop = first + kRun < end ? first + kRun : end;
    for (int64_t i = first; i < stop; ++i) {
      const int64_t at = row_of(i), ahead = row_of(i + kAhead < s.rows ? i + kAhead : i);
      if (s.f64) {
        const double* from = static_cast<const double*>(s.x);
        _mm_prefetch(reinterpret_cast<const char*>(from + ahead), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(from + ahead + 8), _MM_HINT_T0);
        for (int64_t j = 0; j < cols; ++j) x[j] = from[at + j];
      } else {
        const float* from = static_cast<const float*>(s.x);
        _mm_prefetch(reinterpret_cast<const char*>(from + ahead), _MM_HINT_T0);
        for (int64_t j = 0; j < cols; ++j) x[j] = from[at + j];
      }
      place(x, map, 0, bin[i - first], rest[i - first]);
      place(x, map, 8, bin[i - first], rest[i - first]);
    }
    asm volatile("" : : "r"(bin), "r"(rest) : "memory");  // count from memory, not lane by lane
    for (int64_t i = 0; i < stop - first; ++i) {
      for (int64_t j = 0; j < cols; ++j) bins[j * kHistogramBins + bin[i][j]] += kOne + rest[i][j];
    }
  }
}

}  // namespace torchext::cpu
