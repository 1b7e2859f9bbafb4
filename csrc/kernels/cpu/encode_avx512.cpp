// The encoding pass with AVX-512: 16 rows of one column a register, so that a column's thresholds
// and levels are one register each and a search step is one permute. Same bits as encode_ref.cpp.
#include "tile_avx512.h"

namespace torchext::cpu {
namespace {

constexpr int kVectors = 4;  // registers of a tile's column

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

/// What the sums of a group need beside a and q.
struct Neighbours {
  alignas(64) float lower[4][kEncodeTile], upper[4][kEncodeTile];
};

/// Counts the values of one column outside its bounds, if there are any.
inline void count_clipped(const EncodePlan& p, const EncodeTile& t, int64_t col, __m512 least,
                          __m512 most) {
  const __m512 low = _mm512_set1_ps(p.bounds[2 * col]),
               high = _mm512_set1_ps(p.bounds[2 * col + 1]);
  if ((_mm512_cmp_ps_mask(least, low, _CMP_LT_OQ) | _mm512_cmp_ps_mask(most, high, _CMP_GT_OQ)) ==
      0)
    return;
  for (int64_t r = 0; r < t.rows; ++r) {
    const float a = t.a[col * kEncodeTile + r];
    if (a < p.bounds[2 * col] || a > p.bounds[2 * col + 1]) ++t.clipped[col];
  }
}

/// Searches and rounds column c of the group from col; leaves its codes in code[4].
/// kSteps: depth of the table search, 0 for affine levels.
template <EncodeMode kMode, int kSteps>
inline void round_column(const EncodePlan& p, const EncodeTile& t, int64_t col, int64_t c,
                         const char* ahead, const __m512i (*random)[kVectors][4], __m512i* code,
                         Neighbours* near) {
  constexpr bool kTwice = kMode == EncodeMode::twice, kDraw = kMode != EncodeMode::nearest;
  constexpr int kLog = kSteps < 4 ? 4 : kSteps;
  const int64_t j = col + c;
  const float *thresholds = p.thresholds + j * p.width, *levels = p.levels + j * p.width;
  const float* uppers = p.upper + j * p.width;
  __m512 least = _mm512_set1_ps(__builtin_inff()), most = _mm512_set1_ps(-__builtin_inff());
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __m512 a = _mm512_load_ps(t.a + j * kEncodeTile + 16 * v);
    least = _mm512_min_ps(a, least);  // of a NaN and a number the number
    most = _mm512_max_ps(a, most);
    _mm_prefetch(ahead + (4 * (j % 16) + v) * t.row_stride * (t.f64 ? 8 : 4), _MM_HINT_T1);
    Cell cell;
    if constexpr (kSteps == 0) {
      cell = find_affine(p, j, a);
    } else {
      cell.index = search<kSteps>(a, thresholds);
      cell.lower = lookup<kLog>(levels, cell.index);
      if constexpr (kDraw) cell.upper = lookup<kLog>(uppers, cell.index);
    }
    __m512 q = cell.lower;
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
      const __mmask16 up = _mm512_mask_cmp_ps_mask(two, unit_rows(random[0][v][c]), f, _CMP_LT_OQ);
      q = _mm512_mask_mov_ps(cell.lower, up, cell.upper);
      const int bit = kTwice ? 1 << (p.bits - 2) : 1;
      cell.index = _mm512_mask_add_epi32(cell.index, up, cell.index, _mm512_set1_epi32(bit));
      if constexpr (kTwice) {
        const __mmask16 up2 =
            _mm512_mask_cmp_ps_mask(two, unit_rows(random[1][v][c]), f, _CMP_LT_OQ);
        const __m512 q2 = _mm512_mask_mov_ps(cell.lower, up2, cell.upper);
        cell.index = _mm512_mask_add_epi32(cell.index, up2, cell.index, _mm512_set1_epi32(2 * bit));
        _mm512_store_ps(t.q2 + j * kEncodeTile + 16 * v, q2);
      }
      _mm512_store_ps(near->lower[c] + 16 * v, cell.lower);
      _mm512_store_ps(near->upper[c] + 16 * v, cell.upper);
    }
    _mm512_store_ps(t.q + j * kEncodeTile + 16 * v, q);
    code[v] = cell.index;
  }
  if (p.bounds != nullptr) count_clipped(p, t, j, least, most);
}

/// What is summed over a column beside its moments.
enum class Extra { none, targets, dots };

inline __m512d load_wide(const float* x) { return _mm512_cvtps_pd(_mm256_load_ps(x)); }

inline void add_to(double* out, __m512d x) {
  _mm512_storeu_pd(out, _mm512_add_pd(_mm512_loadu_pd(out), x));
}

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

template <EncodeMode kMode, int kSteps>
void run(const EncodePlan& p, const EncodeTile& t) noexcept {
  constexpr int kDraws = kMode == EncodeMode::nearest ? 0 : kMode == EncodeMode::stochastic ? 1 : 2;
  const bool dots = p.x0 != nullptr && p.outputs == 1;
  SumPair* const sum = t.targets != nullptr ? sum_of<kMode, Extra::targets>(t.weight != nullptr)
                       : dots               ? sum_of<kMode, Extra::dots>(t.weight != nullptr)
                                            : sum_of<kMode, Extra::none>(t.weight != nullptr);
  Neighbours near;
  uint8_t* out = t.codes;
  for (int64_t block = 0; block < p.cols; block += 16) {
    scale_columns(p, t, block);
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
          philox_rows(p.key, static_cast<uint64_t>(col) / 4, p.pitch / 4, t.position + 16 * v,
                      static_cast<uint32_t>(d), random[d][v]);
        }
      }
      __m512i word[kVectors], high[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) word[v] = high[v] = _mm512_setzero_si512();
      for (int64_t c = 0; c < 4; ++c) {  // columns past the last have one level: code 0, no sums
        __m512i code[kVectors];
        round_column<kMode, kSteps>(p, t, col, c, ahead, random, code, &near);
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
      sum(p, t, col, 0, near);
      sum(p, t, col, 2, near);
    }
    if (p.x0 != nullptr && !dots) add_dots(p, t, block, end);
  }
}

template <EncodeMode kMode>
void run_mode(const EncodePlan& p, const EncodeTile& t) noexcept {
  if (p.levels == nullptr) return run<kMode, 0>(p, t);
  switch (p.steps) {
    case 1: return run<kMode, 1>(p, t);
    case 2: return run<kMode, 2>(p, t);
    case 3: return run<kMode, 3>(p, t);
    case 4: return run<kMode, 4>(p, t);
    case 5: return run<kMode, 5>(p, t);
    case 6: return run<kMode, 6>(p, t);
    case 7: return run<kMode, 7>(p, t);
    default: return run<kMode, 8>(p, t);
  }
}

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
