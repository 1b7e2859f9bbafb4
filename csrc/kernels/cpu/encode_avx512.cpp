// The encoding pass with AVX-512: 16 rows of one column a register, so that a column's thresholds
// and levels are one register each and a search step is one permute. Same bits as encode_ref.cpp.
#include "encode_scale_avx512.h"
#include "encode_sums_avx512.h"

namespace torchext::cpu {
namespace {

constexpr int64_t kPanel = 128;  // columns fetched together
constexpr int64_t kLines = kPanel / 16, kFetchRows = kEncodeTile / kLines;

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
    const int64_t line = 4 * (j % 16) + v, at = line / kLines * t.row_stride + line % kLines * 16;
    const char* fetch = ahead + at * (t.f64 ? 8 : 4);
    _mm_prefetch(fetch, _MM_HINT_T1);
    if (t.f64) _mm_prefetch(fetch + 64, _MM_HINT_T1);
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
    // A tile's rows are too many streams for the hardware. While 16 columns of a panel are worked
    // on, some rows of the next panel are fetched, so that lines that lie together come together;
    // at the end of the rows the start of the next tile.
    const int64_t panel = block / kPanel * kPanel + kPanel;
    const int64_t next = panel < p.cols ? panel : kEncodeTile * t.row_stride;
    const int64_t row = block % kPanel / 16 * kFetchRows;
    const char* ahead =
        static_cast<const char*>(t.x) + (next + row * t.row_stride) * (t.f64 ? 8 : 4);
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

}  // namespace

void encode_tile_avx512(const EncodePlan& p, const EncodeTile& t) noexcept {
  switch (p.mode) {
    case EncodeMode::nearest: return run_mode<EncodeMode::nearest>(p, t);
    case EncodeMode::stochastic: return run_mode<EncodeMode::stochastic>(p, t);
    default: return run_mode<EncodeMode::twice>(p, t);
  }
}

}  // namespace torchext::cpu
