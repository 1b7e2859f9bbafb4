// The encoding pass with AVX-512: 16 rows of one column a register, so that a column's thresholds
// and levels are one register each and a search step is one permute. Same bits as encode_ref.cpp.
#include "tile_avx512.h"

namespace torchext::cpu {
namespace {

constexpr int kVectors = 4;  // registers of a tile's column

/// Rows of 16 columns from col: scaled values a, transposed into tile.a.
template <bool kF64>
inline void scale_columns(const EncodePlan& p, const EncodeTile& t, int64_t col) {
  const int64_t left = p.cols - col;
  const auto mask = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1);
  const __m512d mu0 = _mm512_loadu_pd(p.mean + col), mu1 = _mm512_loadu_pd(p.mean + col + 8);
  const __m512d s0 = _mm512_loadu_pd(p.scale + col), s1 = _mm512_loadu_pd(p.scale + col + 8);
  for (int v = 0; v < kVectors; ++v) {
    __m512 a[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const int64_t row = 16 * v + i;
      const int64_t at =
          (row < t.rows ? row : 0) * t.row_stride + col;  // missing rows repeat the first
      __m512d x0, x1;
      if constexpr (kF64) {
        const double* x = static_cast<const double*>(t.x) + at;
        x0 = _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), x);
        x1 = _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask >> 8), x + 8);
      } else {
        const float* from = static_cast<const float*>(t.x) + at;
        const __m512 x = _mm512_maskz_loadu_ps(mask, from);
        x0 = low_half(x);
        x1 = high_half(x);
      }
      const __m256 lo = _mm512_cvtpd_ps(_mm512_div_pd(_mm512_sub_pd(x0, mu0), s0));
      const __m256 hi = _mm512_cvtpd_ps(_mm512_div_pd(_mm512_sub_pd(x1, mu1), s1));
      a[i] = _mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
    }
    transpose_16x16(a);
#pragma GCC unroll 16
    for (int c = 0; c < 16; ++c) _mm512_store_ps(t.a + (col + c) * kEncodeTile + 16 * v, a[c]);
  }
}

struct Cell {
  __m512i index;
  __m512 lower, upper;
};

/// Affine levels fl(lo + fl(step*i)): a guess by multiplication is at most one off; exact after one
/// repair.
inline Cell find_affine(const EncodePlan& p, int64_t col, __m512 a) {
  const __m512 lo = _mm512_set1_ps(p.lo[col]), step = _mm512_set1_ps(p.step[col]);
  const int32_t last = p.last[col];
  const __m512i one = _mm512_set1_epi32(1), top = _mm512_set1_epi32(last > 0 ? last - 1 : 0);
  const auto level = [&](__m512i i) {
    return _mm512_add_ps(lo, _mm512_mul_ps(step, _mm512_cvtepi32_ps(i)));
  };
  __m512 guess = _mm512_mul_ps(_mm512_sub_ps(a, lo), _mm512_set1_ps(p.inverse[col]));
  guess = _mm512_min_ps(_mm512_max_ps(guess, _mm512_setzero_ps()), _mm512_cvtepi32_ps(top));
  __m512i i = _mm512_cvttps_epi32(guess);
  const __mmask16 down = _mm512_cmp_ps_mask(a, level(i), _CMP_LT_OQ);
  const __mmask16 up = _mm512_cmp_ps_mask(a, level(_mm512_add_epi32(i, one)), _CMP_GE_OQ);
  i = _mm512_mask_sub_epi32(i, down, i, one);
  i = _mm512_mask_add_epi32(i, up, i, one);
  i = _mm512_min_epi32(_mm512_max_epi32(i, _mm512_setzero_si512()), top);
  return {i, level(i), level(_mm512_add_epi32(i, one))};
}

/// One column of a tile: searches, rounds, sums; leaves its codes in code[4].
/// kSteps: depth of the table search, 0 for affine levels.
template <EncodeMode kMode, int kSteps, bool kWeighted>
inline void encode_column(const EncodePlan& p, const EncodeTile& t, int64_t col, const char* ahead,
                          const __m512i (*random)[kVectors][4], __m512i* code) {
  constexpr bool kTwice = kMode == EncodeMode::twice, kDraw = kMode != EncodeMode::nearest;
  constexpr int kLog = kSteps < 4 ? 4 : kSteps;
  const float* a_col = t.a + col * kEncodeTile;
  const float *thresholds = p.thresholds + col * p.width, *levels = p.levels + col * p.width;
  const float* uppers = p.upper + col * p.width;
  __m512d sum[kMomentSlots];
#pragma GCC unroll 8
  for (auto& s : sum) s = _mm512_setzero_pd();
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __m512 a = _mm512_load_ps(a_col + 16 * v);
    _mm_prefetch(ahead + (4 * (col % 16) + v) * t.row_stride * (t.f64 ? 8 : 4), _MM_HINT_T1);
    Cell cell;
    if constexpr (kSteps == 0) {
      cell = find_affine(p, col, a);
    } else {
      cell.index = search<kSteps>(a, thresholds);
      cell.lower = lookup<kLog>(levels, cell.index);
      if constexpr (kDraw) cell.upper = lookup<kLog>(uppers, cell.index);
    }
    __m512 q = cell.lower, q2 = q;
    if constexpr (kMode == EncodeMode::nearest && kSteps == 0) {
      const __m512 middle =
          _mm512_mul_ps(_mm512_add_ps(cell.lower, cell.upper), _mm512_set1_ps(0.5f));
      const __mmask16 two = _mm512_cmp_ps_mask(cell.upper, cell.lower, _CMP_GT_OQ);
      const __mmask16 up = _mm512_mask_cmp_ps_mask(two, a, middle, _CMP_GT_OQ);
      q = _mm512_mask_mov_ps(cell.lower, up, cell.upper);
      cell.index = _mm512_mask_add_epi32(cell.index, up, cell.index, _mm512_set1_epi32(1));
    }
    if constexpr (kDraw) {
      const __m512 width = _mm512_sub_ps(cell.upper, cell.lower);
      const __m512 f = _mm512_div_ps(_mm512_sub_ps(a, cell.lower), width);
      const __mmask16 two = _mm512_cmp_ps_mask(width, _mm512_setzero_ps(), _CMP_GT_OQ);
      const __mmask16 up =
          _mm512_mask_cmp_ps_mask(two, unit_rows(random[0][v][col % 4]), f, _CMP_LT_OQ);
      q = _mm512_mask_mov_ps(cell.lower, up, cell.upper);
      const int bit = kTwice ? 1 << (p.bits - 2) : 1;
      cell.index = _mm512_mask_add_epi32(cell.index, up, cell.index, _mm512_set1_epi32(bit));
      if constexpr (kTwice) {
        const __mmask16 up2 =
            _mm512_mask_cmp_ps_mask(two, unit_rows(random[1][v][col % 4]), f, _CMP_LT_OQ);
        q2 = _mm512_mask_mov_ps(cell.lower, up2, cell.upper);
        cell.index = _mm512_mask_add_epi32(cell.index, up2, cell.index, _mm512_set1_epi32(2 * bit));
        _mm512_store_ps(t.q2 + col * kEncodeTile + 16 * v, q2);
      }
    }
    _mm512_store_ps(t.q + col * kEncodeTile + 16 * v, q);
    code[v] = cell.index;
    if (p.bounds != nullptr) {
      const int64_t rest = t.rows - 16 * v;
      const auto rows = static_cast<__mmask16>(rest >= 16  ? 0xFFFF
                                               : rest <= 0 ? 0
                                                           : (1 << rest) - 1);
      const __mmask16 low =
          _mm512_mask_cmp_ps_mask(rows, a, _mm512_set1_ps(p.bounds[2 * col]), _CMP_LT_OQ);
      const __mmask16 high =
          _mm512_mask_cmp_ps_mask(rows, a, _mm512_set1_ps(p.bounds[2 * col + 1]), _CMP_GT_OQ);
      const auto outside = static_cast<unsigned>(low | high);
      if (outside != 0) t.clipped[col] += __builtin_popcount(outside);
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const auto half = [h](__m512 x) { return h == 0 ? low_half(x) : high_half(x); };
      const __m512d w =
          kWeighted ? _mm512_loadu_pd(t.weight + 16 * v + 8 * h) : _mm512_set1_pd(1.0);
      const auto times = [w](__m512d x) { return kWeighted ? _mm512_mul_pd(w, x) : x; };
      const __m512d da = half(a), dq = half(q), d = _mm512_sub_pd(dq, da);
      if constexpr (kTwice) {
        const __m512d dq2 = half(q2), d2 = _mm512_sub_pd(dq2, da),
                      half_w = _mm512_mul_pd(_mm512_set1_pd(0.5), w);
        sum[kSquaredError] = _mm512_fmadd_pd(_mm512_mul_pd(half_w, d), d, sum[kSquaredError]);
        sum[kSquaredError] = _mm512_fmadd_pd(_mm512_mul_pd(half_w, d2), d2, sum[kSquaredError]);
        sum[kDecodedSquare] = _mm512_fmadd_pd(times(dq), dq2, sum[kDecodedSquare]);
        sum[kDecoded] = _mm512_fmadd_pd(half_w, _mm512_add_pd(dq, dq2), sum[kDecoded]);
      } else {
        sum[kSquaredError] = _mm512_fmadd_pd(times(d), d, sum[kSquaredError]);
        sum[kDecodedSquare] = _mm512_fmadd_pd(times(dq), dq, sum[kDecodedSquare]);
        sum[kDecoded] =
            kWeighted ? _mm512_fmadd_pd(w, dq, sum[kDecoded]) : _mm512_add_pd(dq, sum[kDecoded]);
      }
      sum[kExactSquare] = _mm512_fmadd_pd(times(da), da, sum[kExactSquare]);
      if constexpr (kDraw) {
        const __m512d rise = _mm512_sub_pd(da, half(cell.lower)),
                      fall = _mm512_sub_pd(half(cell.upper), da);
        const __m512d var = _mm512_max_pd(_mm512_mul_pd(fall, rise), _mm512_setzero_pd());
        sum[kVariance] = kWeighted ? _mm512_fmadd_pd(w, var, sum[kVariance])
                                   : _mm512_add_pd(var, sum[kVariance]);
        sum[kVarianceSquare] = _mm512_fmadd_pd(times(var), var, sum[kVarianceSquare]);
      }
    }
  }
  double* out = t.moments + col * kMomentSlots;
  _mm512_storeu_pd(out, _mm512_add_pd(_mm512_loadu_pd(out), join_lanes_ordered(sum)));
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

template <EncodeMode kMode, int kSteps, bool kWeighted>
void run(const EncodePlan& p, const EncodeTile& t) noexcept {
  constexpr int kDraws = kMode == EncodeMode::nearest ? 0 : kMode == EncodeMode::stochastic ? 1 : 2;
  uint8_t* out = t.codes;
  for (int64_t block = 0; block < p.cols; block += 16) {
    if (t.f64) {
      scale_columns<true>(p, t, block);
    } else {
      scale_columns<false>(p, t, block);
    }
    const int64_t end = block + 16 < p.cols ? block + 16 : p.cols;
    // A tile's rows are too many streams for the hardware. While these columns are worked on, the
    // next 16 are fetched, one row per column and register; at the end of the rows the start of the
    // next tile.
    const int64_t next = end < p.cols ? end : kEncodeTile * t.row_stride;
    const char* ahead = static_cast<const char*>(t.x) + next * (t.f64 ? 8 : 4);
    for (int64_t col = block; col < end; col += 4) {
      __m512i random[kDraws > 0 ? kDraws : 1][kVectors][4];
      for (int d = 0; d < kDraws; ++d) {
        for (int v = 0; v < kVectors; ++v) {
          const uint64_t row = static_cast<uint64_t>(t.row + 16 * v);
          philox_rows(p.key, (row * p.pitch + static_cast<uint64_t>(col)) / 4, p.pitch / 4,
                      static_cast<uint32_t>(d), random[d][v]);
        }
      }
      __m512i word[kVectors], high[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) word[v] = high[v] = _mm512_setzero_si512();
      const int64_t columns = end - col < 4 ? end - col : 4;
      for (int64_t c = 0; c < columns; ++c) {
        __m512i code[kVectors];
        encode_column<kMode, kSteps, kWeighted>(p, t, col + c, ahead, random, code);
        const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(8 * c));
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          if constexpr (kSteps == 0) {  // only affine codes may exceed a byte
            high[v] =
                _mm512_or_si512(high[v], _mm512_sll_epi32(_mm512_srli_epi32(code[v], 8), shift));
            code[v] = _mm512_and_si512(code[v], _mm512_set1_epi32(255));
          }
          word[v] = _mm512_or_si512(word[v], _mm512_sll_epi32(code[v], shift));
        }
      }
      if (t.rows < kEncodeTile) {
        for (int v = 0; v < kVectors; ++v) {
          const int64_t rest = t.rows - 16 * v;
          const auto rows = static_cast<__mmask16>(rest >= 16  ? 0xFFFF
                                                   : rest <= 0 ? 0
                                                               : (1 << rest) - 1);
          word[v] = _mm512_maskz_mov_epi32(rows, word[v]);
          high[v] = _mm512_maskz_mov_epi32(rows, high[v]);
        }
      }
      out = pack_group(word, p.bits > 8 ? 8 : p.bits, out);
      if (p.bits > 8) out = pack_group(high, p.bits - 8, out);
    }
    if (p.x0 != nullptr) add_dots(p, t, block, end);
  }
}

template <EncodeMode kMode, int kSteps>
void run_weighted(const EncodePlan& p, const EncodeTile& t) noexcept {
  (t.weight != nullptr ? run<kMode, kSteps, true> : run<kMode, kSteps, false>)(p, t);
}

template <EncodeMode kMode>
void run_mode(const EncodePlan& p, const EncodeTile& t) noexcept {
  if (p.levels == nullptr) return run_weighted<kMode, 0>(p, t);
  switch (p.steps) {
    case 1: return run_weighted<kMode, 1>(p, t);
    case 2: return run_weighted<kMode, 2>(p, t);
    case 3: return run_weighted<kMode, 3>(p, t);
    case 4: return run_weighted<kMode, 4>(p, t);
    case 5: return run_weighted<kMode, 5>(p, t);
    case 6: return run_weighted<kMode, 6>(p, t);
    case 7: return run_weighted<kMode, 7>(p, t);
    default: return run_weighted<kMode, 8>(p, t);
  }
}

/// Sums of two columns; kTwice: two decoded values.
template <bool kTwice, bool kAnchor>
inline void gradient_columns(const GradientTile& t, int64_t col, int64_t columns) {
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
      const __m512d a = _mm512_cvtps_pd(_mm256_load_ps(t.a + at)),
                    q = _mm512_cvtps_pd(_mm256_load_ps(t.q + at));
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

void encode_tile_avx512(const EncodePlan& p, const EncodeTile& t) noexcept {
  switch (p.mode) {
    case EncodeMode::nearest: return run_mode<EncodeMode::nearest>(p, t);
    case EncodeMode::stochastic: return run_mode<EncodeMode::stochastic>(p, t);
    default: return run_mode<EncodeMode::twice>(p, t);
  }
}

void gradient_tile_avx512(const GradientTile& t, int64_t cols) noexcept {
  if (t.q2 != nullptr) {
    (t.e != nullptr ? run_gradient<true, true> : run_gradient<true, false>)(t, cols);
  } else {
    (t.e != nullptr ? run_gradient<false, true> : run_gradient<false, false>)(t, cols);
  }
}

}  // namespace torchext::cpu
