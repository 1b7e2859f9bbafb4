// Histograms of 16 columns with AVX2, for every instruction set above it too: counting is bound by
// loads and stores, not by the width of registers.
//
// A column's counters fill half of the first-level cache. So the bins of a run of rows are computed
// for all columns first, transposed, and then counted column by column.
#include <immintrin.h>

#include "kernels/column_levels.h"
#include "tile_avx2.h"

namespace torchext::cpu {
namespace {

constexpr int64_t kRun = 512;   // rows whose bins are computed before any is counted
constexpr int64_t kAhead = 24;  // rows of prefetch
constexpr uint64_t kOne = uint64_t{1} << 40;

/// Bins and low bits of a run: [column][row].
struct Run {
  alignas(32) uint32_t bin[kHistogramColumns][kRun];
  alignas(32) uint32_t rest[kHistogramColumns][kRun];
};

template <class T>
inline __m256 scaled8(const T* from, const double* mean, const double* inverse) {
  __m128 half[2];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256d x = load4(from + 4 * h);
    const __m256d d = _mm256_sub_pd(x, _mm256_loadu_pd(mean + 4 * h));
    half[h] = _mm256_cvtpd_ps(_mm256_mul_pd(d, _mm256_loadu_pd(inverse + 4 * h)));
  }
  return _mm256_set_m128(half[1], half[0]);
}

/// Bins and low bits of 8 rows of column j.
inline void place(__m256 a, const HistogramMap& map, int64_t j, uint32_t* bin, uint32_t* rest) {
  // Broadcasts from memory take no port that the arithmetic needs.
  const auto all = [j](const uint32_t* x) { return _mm256_set1_epi32(static_cast<int>(x[j])); };
  const __m256 away = _mm256_sub_ps(a, _mm256_set1_ps(map.center[j]));
  const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), away);
  const __m256i word = _mm256_castps_si256(_mm256_add_ps(size, _mm256_set1_ps(map.c[j])));
  const __m256i below = _mm256_castps_si256(_mm256_cmp_ps(away, _mm256_setzero_ps(), _CMP_LT_OQ));
  const __m256i turn = _mm256_and_si256(all(map.turn), below);
  __m256i key = _mm256_sub_epi32(_mm256_srlv_epi32(word, all(map.shift)), all(map.base));
  key = _mm256_min_epu32(key, _mm256_xor_si256(all(map.over), turn));
  // Below the center the bin is origin - 1 - key = origin + ~key.
  const __m256i at = _mm256_add_epi32(all(map.origin), _mm256_xor_si256(key, below));
  _mm256_store_si256(reinterpret_cast<__m256i*>(bin), at);
  _mm256_store_si256(reinterpret_cast<__m256i*>(rest), _mm256_and_si256(word, all(map.rest)));
}

/// kWhole: 16 columns; fewer are copied, so that no register reads past the last row.
template <class T, bool kWhole>
void run(const Sample& s, int64_t begin, int64_t end, int64_t col, int64_t cols,
         const HistogramMap& map, uint64_t* bins) noexcept {
  const auto row_at = [&](int64_t i) {
    return static_cast<const T*>(s.x) + (s.index != nullptr ? s.index[i] : i) * s.row_stride + col;
  };
  T copy[kHistogramColumns] = {};
  Run runs;
  for (int64_t first = begin; first < end; first += kRun) {
    const int64_t stop = first + kRun < end ? first + kRun : end;
    for (int64_t i = first; i < stop; i += 8) {
      __m256 a[2][8];
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) {
        const int64_t row = i + r < stop ? i + r : stop - 1;  // repeated rows are not counted
        const T *x = row_at(row), *ahead = row_at(row + kAhead < s.rows ? row + kAhead : row);
        _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
        if (sizeof(T) == 8) _mm_prefetch(reinterpret_cast<const char*>(ahead + 8), _MM_HINT_T1);
        if constexpr (!kWhole) {
          for (int64_t j = 0; j < cols; ++j) copy[j] = x[j];
          x = copy;
        }
        a[0][r] = scaled8(x, map.mean, map.inverse);
        a[1][r] = scaled8(x + 8, map.mean + 8, map.inverse + 8);
      }
      for (int64_t h = 0; h < 2; ++h) {
        transpose_8x8(a[h]);
#pragma GCC unroll 8
        for (int64_t j = 0; j < 8; ++j)
          place(a[h][j], map, 8 * h + j, runs.bin[8 * h + j] + i - first,
                runs.rest[8 * h + j] + i - first);
      }
    }
    for (int64_t j = 0; j < cols; ++j) {
      uint64_t* const to = bins + j * map.bins;
      const uint32_t *bin = runs.bin[j], *rest = runs.rest[j];
#pragma GCC unroll 4
      for (int64_t i = 0; i < stop - first; ++i) {
        // Filled for these i above.
        // NOLINTNEXTLINE(clang-analyzer-core.uninitialized.ArraySubscript)
        to[bin[i]] += kOne + rest[i];
      }
    }
  }
}

template <class T>
void run_columns(const Sample& s, int64_t begin, int64_t end, int64_t col, int64_t cols,
                 const HistogramMap& map, uint64_t* bins) noexcept {
  (cols == kHistogramColumns ? run<T, true> : run<T, false>)(s, begin, end, col, cols, map, bins);
}

}  // namespace

void histogram_avx2(const Sample& sample, int64_t begin, int64_t end, int64_t col, int64_t cols,
                    const HistogramMap& map, uint64_t* bins) noexcept {
  (sample.f64 ? run_columns<double> : run_columns<float>)(sample, begin, end, col, cols, map, bins);
}

}  // namespace torchext::cpu
