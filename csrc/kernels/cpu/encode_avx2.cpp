// The encoding pass with AVX2: 8 rows of one column a register. Same bits as encode_ref.cpp; the
// structure is that of encode_avx512.cpp.
#include "tile_avx2.h"

namespace torchext::cpu {
namespace {

constexpr int kVectors = 8;      // registers of a tile's column
constexpr int64_t kPanel = 256;  // columns scaled together, a multiple of 16

inline __m256 scaled(__m256d x0, __m256d x1, const double* mean, const double* scale) {
  const __m128 lo = _mm256_cvtpd_ps(
      _mm256_div_pd(_mm256_sub_pd(x0, _mm256_loadu_pd(mean)), _mm256_loadu_pd(scale)));
  const __m128 hi = _mm256_cvtpd_ps(
      _mm256_div_pd(_mm256_sub_pd(x1, _mm256_loadu_pd(mean + 4)), _mm256_loadu_pd(scale + 4)));
  return _mm256_set_m128(hi, lo);
}

/// Rows 8 v .. 8 v + 7 of 8 columns from col: scaled values a, transposed into tile.a.
template <class T>
inline void scale_block(const EncodePlan& p, const EncodeTile& t, int64_t col, int64_t v) {
  const auto* const from = static_cast<const T*>(t.x) + col;
  const int64_t left = p.cols - col;
  __m256 a[8];
#pragma GCC unroll 8
  for (int64_t i = 0; i < 8; ++i) {
    const int64_t row = 8 * v + i < t.rows ? 8 * v + i : 0;  // missing rows repeat the first
    const T* x = from + row * t.row_stride;
    if (left < 8) {
      const __m256i mask = first_lanes(left);
      if constexpr (sizeof(T) == 8) {
        const __m256i mask_lo = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(mask));
        const __m256i mask_hi = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(mask, 1));
        a[i] = scaled(_mm256_maskload_pd(x, mask_lo), _mm256_maskload_pd(x + 4, mask_hi),
                      p.mean + col, p.scale + col);
      } else {
        const __m256 some = _mm256_maskload_ps(x, mask);
        a[i] = scaled(low_half(some), high_half(some), p.mean + col, p.scale + col);
      }
    } else {
      a[i] = scaled(load4(x), load4(x + 4), p.mean + col, p.scale + col);
    }
  }
  transpose_8x8(a);
#pragma GCC unroll 8
  for (int c = 0; c < 8; ++c) _mm256_store_ps(t.a + (col + c) * kEncodeTile + 8 * v, a[c]);
}

inline void scale_columns(const EncodePlan& p, const EncodeTile& t, int64_t col, int64_t v) {
  (t.f64 ? scale_block<double> : scale_block<float>)(p, t, col, v);
}

struct Cell {
  __m256i index;
  __m256 lower, upper;
};

/// Affine levels fl(lo + fl(step*i)): a guess by multiplication is at most one off; exact after one
/// repair.
inline Cell find_affine(const EncodePlan& p, int64_t col, __m256 a) {
  const __m256 lo = _mm256_set1_ps(p.lo[col]), step = _mm256_set1_ps(p.step[col]);
  const int32_t last = p.last[col];
  const __m256i one = _mm256_set1_epi32(1), top = _mm256_set1_epi32(last > 0 ? last - 1 : 0);
  const auto level = [&](__m256i i) {
    return _mm256_add_ps(lo, _mm256_mul_ps(step, _mm256_cvtepi32_ps(i)));
  };
  __m256 guess = _mm256_mul_ps(_mm256_sub_ps(a, lo), _mm256_set1_ps(p.inverse[col]));
  guess = _mm256_min_ps(_mm256_max_ps(guess, _mm256_setzero_ps()), _mm256_cvtepi32_ps(top));
  __m256i i = _mm256_cvttps_epi32(guess);
  const __m256i down = _mm256_castps_si256(_mm256_cmp_ps(a, level(i), _CMP_LT_OQ));
  const __m256i up =
      _mm256_castps_si256(_mm256_cmp_ps(a, level(_mm256_add_epi32(i, one)), _CMP_GE_OQ));
  i = _mm256_sub_epi32(_mm256_add_epi32(i, down), up);
  i = _mm256_min_epi32(_mm256_max_epi32(i, _mm256_setzero_si256()), top);
  return {i, level(i), level(_mm256_add_epi32(i, one))};
}

inline void count_clipped(const EncodePlan& p, const EncodeTile& t, int64_t col, int v, __m256 a) {
  const __m256 low = _mm256_cmp_ps(a, _mm256_set1_ps(p.bounds[2 * col]), _CMP_LT_OQ);
  const __m256 high = _mm256_cmp_ps(a, _mm256_set1_ps(p.bounds[2 * col + 1]), _CMP_GT_OQ);
  const int outside = _mm256_movemask_ps(_mm256_or_ps(low, high));
  if (outside == 0) return;
  const int rows = _mm256_movemask_ps(_mm256_castsi256_ps(first_lanes(t.rows - 8 * v)));
  t.clipped[col] += __builtin_popcount(static_cast<unsigned>(outside & rows));
}

/// What a column's sums need beside a and q; rows of a tile.
struct Neighbours {
  alignas(32) float lower[kEncodeTile], upper[kEncodeTile];
};

/// Searches one column of a tile and rounds it; leaves its codes in code[8].
/// kSteps: depth of the table search, 0 for affine levels.
template <EncodeMode kMode, int kSteps>
inline void round_column(const EncodePlan& p, const EncodeTile& t, int64_t col,
                         const __m256i (*random)[kVectors][4], __m256i* code, Neighbours* near) {
  constexpr bool kTwice = kMode == EncodeMode::twice, kDraw = kMode != EncodeMode::nearest;
  const __m256i one = _mm256_set1_epi32(1);
  for (int v = 0; v < kVectors; ++v) {
    const __m256 a = _mm256_load_ps(t.a + col * kEncodeTile + 8 * v);
    Cell cell;
    if constexpr (kSteps == 0) {
      cell = find_affine(p, col, a);
    } else {
      cell.index = search<kSteps>(a, p.thresholds + col * p.width);
      cell.lower = lookup<kSteps>(p.levels + col * p.width, cell.index);
      cell.upper = kDraw ? lookup<kSteps>(p.upper + col * p.width, cell.index) : cell.lower;
    }
    __m256 q = cell.lower;
    if constexpr (kMode == EncodeMode::nearest && kSteps == 0) {
      const __m256 middle =
          _mm256_mul_ps(_mm256_add_ps(cell.lower, cell.upper), _mm256_set1_ps(0.5f));
      const __m256 two = _mm256_cmp_ps(cell.upper, cell.lower, _CMP_GT_OQ);
      const __m256 up = _mm256_and_ps(two, _mm256_cmp_ps(a, middle, _CMP_GT_OQ));
      q = _mm256_blendv_ps(cell.lower, cell.upper, up);
      cell.index = _mm256_sub_epi32(cell.index, _mm256_castps_si256(up));
    }
    if constexpr (kDraw) {
      const __m256 width = _mm256_sub_ps(cell.upper, cell.lower);
      const __m256 f = _mm256_div_ps(_mm256_sub_ps(a, cell.lower), width);
      const __m256 two = _mm256_cmp_ps(width, _mm256_setzero_ps(), _CMP_GT_OQ);
      const __m256 up =
          _mm256_and_ps(two, _mm256_cmp_ps(unit_rows(random[0][v][col % 4]), f, _CMP_LT_OQ));
      q = _mm256_blendv_ps(cell.lower, cell.upper, up);
      const __m256i bit = kTwice ? _mm256_set1_epi32(1 << (p.bits - 2)) : one;
      cell.index = _mm256_add_epi32(cell.index, _mm256_and_si256(_mm256_castps_si256(up), bit));
      if constexpr (kTwice) {
        const __m256 up2 =
            _mm256_and_ps(two, _mm256_cmp_ps(unit_rows(random[1][v][col % 4]), f, _CMP_LT_OQ));
        const __m256 q2 = _mm256_blendv_ps(cell.lower, cell.upper, up2);
        const __m256i bit2 = _mm256_and_si256(_mm256_castps_si256(up2), _mm256_add_epi32(bit, bit));
        cell.index = _mm256_add_epi32(cell.index, bit2);
        _mm256_store_ps(t.q2 + col * kEncodeTile + 8 * v, q2);
      }
      _mm256_store_ps(near->lower + 8 * v, cell.lower);
      _mm256_store_ps(near->upper + 8 * v, cell.upper);
    }
    _mm256_store_ps(t.q + col * kEncodeTile + 8 * v, q);
    code[v] = cell.index;
    if (p.bounds != nullptr) count_clipped(p, t, col, v, a);
  }
}

/// What is summed over a column beside its moments.
enum class Extra { none, targets, dots };

/// The sums of a column. targets: those of the only output; dots: the column's share of z.
template <EncodeMode kMode, bool kWeighted, Extra kExtra>
void sum_column(const EncodePlan& p, const EncodeTile& t, int64_t col,
                const Neighbours& near) noexcept {
  constexpr bool kTwice = kMode == EncodeMode::twice;
  Lanes sum[kMomentSlots], target[4];
  for (auto& s : sum) s = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  for (auto& s : target) s = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  const float *a_col = t.a + col * kEncodeTile, *q_col = t.q + col * kEncodeTile;
  const __m256d coef = _mm256_set1_pd(kExtra == Extra::dots ? p.x0[col] : 0.0);
  const auto add4 = [&](int64_t at, auto half) {
    const auto add = [half](Lanes& s, __m256d x, __m256d y) {
      s.*half = _mm256_fmadd_pd(x, y, s.*half);
    };
    const __m256d w = kWeighted ? _mm256_loadu_pd(t.weight + at) : _mm256_set1_pd(1.0);
    const auto times = [w](__m256d x) { return kWeighted ? _mm256_mul_pd(w, x) : x; };
    const auto add_weighted = [half, w](Lanes& s, __m256d x) {
      s.*half = kWeighted ? _mm256_fmadd_pd(w, x, s.*half) : _mm256_add_pd(x, s.*half);
    };
    const __m256d a = load4(a_col + at), q = load4(q_col + at), d = _mm256_sub_pd(q, a);
    __m256d error = d, q2 = q;
    if constexpr (kTwice) {
      q2 = load4(t.q2 + col * kEncodeTile + at);
      const __m256d d2 = _mm256_sub_pd(q2, a), half_w = _mm256_mul_pd(_mm256_set1_pd(0.5), w);
      add(sum[kSquaredError], _mm256_mul_pd(half_w, d), d);
      add(sum[kSquaredError], _mm256_mul_pd(half_w, d2), d2);
      add(sum[kDecodedSquare], times(q), q2);
      add(sum[kDecoded], half_w, _mm256_add_pd(q, q2));
      error = _mm256_sub_pd(_mm256_mul_pd(_mm256_set1_pd(0.5), _mm256_add_pd(q, q2)), a);
    } else {
      add(sum[kSquaredError], times(d), d);
      add(sum[kDecodedSquare], times(q), q);
      add_weighted(sum[kDecoded], q);
    }
    add(sum[kExactSquare], times(a), a);
    if constexpr (kMode != EncodeMode::nearest) {
      const __m256d rise = _mm256_sub_pd(a, load4(near.lower + at)),
                    fall = _mm256_sub_pd(load4(near.upper + at), a);
      const __m256d var = _mm256_max_pd(_mm256_mul_pd(fall, rise), _mm256_setzero_pd());
      add_weighted(sum[kVariance], var);
      add(sum[kVarianceSquare], times(var), var);
    }
    if constexpr (kExtra == Extra::targets) {
      const __m256d y = _mm256_loadu_pd(t.y + at);
      add(target[kExactTarget], a, y);
      add(target[kErrorTarget], error, y);
    }
    if constexpr (kExtra == Extra::dots) {
      const auto move = [&](int64_t draw, __m256d x) {
        double* z = t.z + draw * kEncodeTile + at;
        _mm256_storeu_pd(z, _mm256_fmadd_pd(x, coef, _mm256_loadu_pd(z)));
      };
      move(0, a);
      move(1, q);
      if constexpr (kTwice) move(2, q2);
    }
  };
  for (int64_t at = 0; at < kEncodeTile; at += 8) {
    add4(at, &Lanes::lo);
    add4(at + 4, &Lanes::hi);
  }
  add_joined(t.moments + col * kMomentSlots, sum);
  add_joined(t.moments + col * kMomentSlots + 4, sum + 4);
  if constexpr (kExtra == Extra::targets) add_joined(t.targets + col * kOutputSums, target);
}

using SumColumn = void(const EncodePlan&, const EncodeTile&, int64_t, const Neighbours&) noexcept;

template <EncodeMode kMode>
SumColumn* sum_of(bool weighted, Extra extra) {
  switch (extra) {
    case Extra::targets:
      return weighted ? sum_column<kMode, true, Extra::targets>
                      : sum_column<kMode, false, Extra::targets>;
    case Extra::dots:
      return weighted ? sum_column<kMode, true, Extra::dots>
                      : sum_column<kMode, false, Extra::dots>;
    default:
      return weighted ? sum_column<kMode, true, Extra::none>
                      : sum_column<kMode, false, Extra::none>;
  }
}

/// z += x0 * values over columns [begin, end) for every output, in column order.
inline void add_dots(const EncodePlan& p, const EncodeTile& t, int64_t begin, int64_t end) {
  const float* values[3] = {t.a, t.q, t.q2};
  const int draws = p.mode == EncodeMode::twice ? 3 : 2;
  for (int64_t od = 0; od < p.outputs * draws; ++od) {
    const int64_t o = od / draws, d = od % draws;
    const double* coef = p.x0 + o * p.padded;
    for (int64_t half = 0; half < kEncodeTile; half += 32) {
      double* z = t.z + (3 * o + d) * kEncodeTile + half;
      __m256d sum[8];
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) sum[v] = _mm256_loadu_pd(z + 4 * v);
      for (int64_t j = begin; j < end; ++j) {
        const __m256d c = _mm256_set1_pd(coef[j]);
        const float* x = values[d] + j * kEncodeTile + half;
#pragma GCC unroll 8
        for (int v = 0; v < 8; ++v)
          sum[v] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_load_ps(x + 4 * v)), c, sum[v]);
      }
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) _mm256_storeu_pd(z + 4 * v, sum[v]);
    }
  }
}

/// Asks for the cache lines of rows 8 v .. 8 v + 7 that hold column col of this tile or, past the
/// last column, of the next one: a tile's rows are too many streams for the hardware.
inline void fetch_ahead(const EncodePlan& p, const EncodeTile& t, int64_t col, int64_t v) {
  const int64_t item = t.f64 ? 8 : 4, next = col < p.padded ? 0 : kEncodeTile;
  const int64_t at = (next + 8 * v) * t.row_stride + (next == 0 ? col : col - p.padded);
  const char* x = static_cast<const char*>(t.x) + at * item;
  for (int64_t i = 0; i < 8; ++i, x += t.row_stride * item) _mm_prefetch(x, _MM_HINT_T1);
}

/// Part `turn` of kPanel parts of scaling the columns from `panel`; 8 rows are read at a time.
inline void scale_part(const EncodePlan& p, const EncodeTile& t, int64_t panel, int64_t turn) {
  const int64_t col = panel + turn % (kPanel / 8) * 8, v = turn / (kPanel / 8);
  if (col < p.cols) scale_columns(p, t, col, v);
}

/// Works on panels of columns. Between two columns a part of the next panel is scaled: its
/// divisions run beside the search, and a part of the one after it is fetched.
template <EncodeMode kMode, int kSteps>
void run(const EncodePlan& p, const EncodeTile& t) noexcept {
  constexpr int kDraws = kMode == EncodeMode::nearest ? 0 : kMode == EncodeMode::stochastic ? 1 : 2;
  const Extra extra = t.targets != nullptr                ? Extra::targets
                      : p.x0 != nullptr && p.outputs == 1 ? Extra::dots
                                                          : Extra::none;
  SumColumn* const sum = sum_of<kMode>(t.weight != nullptr, extra);
  Neighbours near;
  uint8_t* out = t.codes;
  for (int64_t turn = 0; turn < kPanel; ++turn) scale_part(p, t, 0, turn);
  for (int64_t panel = 0; panel < p.cols; panel += kPanel) {
    const int64_t end = panel + kPanel < p.cols ? panel + kPanel : p.cols;
    for (int64_t col = panel; col < end; col += 4) {
      __m256i random[kDraws > 0 ? kDraws : 1][kVectors][4];
      for (int d = 0; d < kDraws; ++d) {
        for (int v = 0; v < kVectors; ++v) {
          philox_rows(p.key, static_cast<uint64_t>(col) / 4, p.pitch / 4, t.position + 8 * v,
                      static_cast<uint32_t>(d), random[d][v]);
        }
      }
      __m256i word[kVectors], high[kVectors];
      for (int v = 0; v < kVectors; ++v) word[v] = high[v] = _mm256_setzero_si256();
      const int64_t columns = end - col < 4 ? end - col : 4;
      for (int64_t c = 0; c < columns; ++c) {
        __m256i code[kVectors];
        round_column<kMode, kSteps>(p, t, col + c, random, code, &near);
        const int64_t turn = col + c - panel;
        if (turn % 2 == 0 || t.f64)
          fetch_ahead(p, t, panel + 2 * kPanel + turn % (kPanel / 8) * 8, turn / (kPanel / 8));
        scale_part(p, t, panel + kPanel, turn);
        const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(8 * c));
        for (int v = 0; v < kVectors; ++v) {
          if constexpr (kSteps == 0) {  // only affine codes may exceed a byte
            high[v] =
                _mm256_or_si256(high[v], _mm256_sll_epi32(_mm256_srli_epi32(code[v], 8), shift));
            code[v] = _mm256_and_si256(code[v], _mm256_set1_epi32(255));
          }
          word[v] = _mm256_or_si256(word[v], _mm256_sll_epi32(code[v], shift));
        }
        sum(p, t, col + c, near);
      }
      if (t.rows < kEncodeTile) {
        for (int v = 0; v < kVectors; ++v) {
          const __m256i there = first_lanes(t.rows - 8 * v);
          word[v] = _mm256_and_si256(word[v], there);
          high[v] = _mm256_and_si256(high[v], there);
        }
      }
      out = pack_group(word, p.bits > 8 ? 8 : p.bits, out);
      if (p.bits > 8) out = pack_group(high, p.bits - 8, out);
    }
    if (p.x0 != nullptr && extra != Extra::dots) add_dots(p, t, panel, end);
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

template <bool kTwice, bool kAnchor>
void run_gradient(const GradientTile& t, int64_t cols) noexcept {
  for (int64_t j = 0; j < cols; ++j) {
    Lanes sum[kOutputSums];
    for (auto& s : sum) s = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    const auto add = [&](OutputSum k, int v, __m256d x, __m256d y) {
      (v % 2 == 0 ? sum[k].lo : sum[k].hi) =
          _mm256_fmadd_pd(x, y, v % 2 == 0 ? sum[k].lo : sum[k].hi);
    };
#pragma GCC unroll 16
    for (int v = 0; v < 16; ++v) {
      const int64_t at = j * kEncodeTile + 4 * v;
      const __m256d a = _mm256_cvtps_pd(_mm_load_ps(t.a + at)),
                    q = _mm256_cvtps_pd(_mm_load_ps(t.q + at));
      const __m256d y = _mm256_loadu_pd(t.y + 4 * v);
      __m256d decoded = q, q2 = q;
      if constexpr (kTwice) {
        q2 = _mm256_cvtps_pd(_mm_load_ps(t.q2 + at));
        decoded = _mm256_mul_pd(_mm256_set1_pd(0.5), _mm256_add_pd(q, q2));
      }
      add(kExactTarget, v, a, y);
      add(kErrorTarget, v, _mm256_sub_pd(decoded, a), y);
      if constexpr (kAnchor) {
        add(kExactGradient, v, a, _mm256_loadu_pd(t.e + 4 * v));
        add(kDecodedGradient, v, q, _mm256_loadu_pd(t.eq + 4 * v));
        if constexpr (kTwice) add(kDecodedGradient, v, q2, _mm256_loadu_pd(t.eq2 + 4 * v));
      }
    }
    add_joined(t.out + j * kOutputSums, sum);
  }
}

}  // namespace

void encode_tile_avx2(const EncodePlan& p, const EncodeTile& t) noexcept {
  switch (p.mode) {
    case EncodeMode::nearest: return run_mode<EncodeMode::nearest>(p, t);
    case EncodeMode::stochastic: return run_mode<EncodeMode::stochastic>(p, t);
    default: return run_mode<EncodeMode::twice>(p, t);
  }
}

void gradient_tile_avx2(const GradientTile& t, int64_t cols) noexcept {
  if (t.q2 != nullptr) {
    (t.e != nullptr ? run_gradient<true, true> : run_gradient<true, false>)(t, cols);
  } else {
    (t.e != nullptr ? run_gradient<false, true> : run_gradient<false, false>)(t, cols);
  }
}

}  // namespace torchext::cpu
