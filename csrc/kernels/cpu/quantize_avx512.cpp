#include "pack_bmi2.h"
#include "philox_avx512.h"
#include "quantize_unit.h"

namespace torchext::cpu {
namespace {

constexpr int kFloor = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// t rounded on the integers; u is used by the stochastic rule only.
template <bool kStochastic>
static inline __m512 round_16(__m512 t, __m512 u) {
  if constexpr (!kStochastic) return _mm512_roundscale_ps(t, kNearest);
  const __m512 low = _mm512_roundscale_ps(t, kFloor);
  const __mmask16 up = _mm512_cmp_ps_mask(u, _mm512_sub_ps(t, low), _CMP_LT_OQ);
  return _mm512_mask_add_ps(low, up, low, _mm512_set1_ps(1.0f));
}

/// Codes of 16 values; the mask tells which have none.
template <Scheme kScheme, bool kStochastic>
struct Coder {
  __m512 lowest, highest;  // of the rounded value
  __m512i zero, reserved;

  explicit Coder(const QuantizeParams& p) {
    const int32_t q = symmetric_max(p.format.bits), top = (1 << p.format.bits) - 1;
    const bool symmetric = kScheme == Scheme::symmetric;
    lowest = _mm512_set1_ps(symmetric ? static_cast<float>(-q) : 0.0f);
    highest = _mm512_set1_ps(static_cast<float>(symmetric ? q : top));
    zero = _mm512_set1_epi32(symmetric ? q : 0);
    reserved = _mm512_set1_epi32(symmetric ? 2 * q + 1 : 0);
  }

  __mmask16 operator()(__m512 x, const UnitScales& u, int k, __m512 random, __m512i* code) const {
    if constexpr (kScheme == Scheme::affine) x = _mm512_sub_ps(x, _mm512_load_ps(u.lo + k));
    const __m512 t = _mm512_mul_ps(x, _mm512_load_ps(u.inverse + k));
    const __mmask16 nan = _mm512_cmp_ps_mask(t, t, _CMP_UNORD_Q);
    const __m512 n =
        _mm512_max_ps(_mm512_min_ps(round_16<kStochastic>(t, random), highest), lowest);
    *code = _mm512_mask_mov_epi32(_mm512_add_epi32(_mm512_cvttps_epi32(n), zero), nan, reserved);
    return kScheme == Scheme::symmetric ? __mmask16{0} : nan;
  }
};

/// Up to 16 levels in one register; four steps of bisection find the lower neighbour.
template <bool kStochastic>
struct Coder<Scheme::levels, kStochastic> {
  __m512 values, bounds;  // bounds: +Inf after the last distinct level
  __m512i last_interval;

  Coder(const LevelTables& tables, int64_t table) {
    const int32_t last = tables.last[table];
    values = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << (last + 1)) - 1),
                                   tables.values + table * tables.stride);
    bounds = _mm512_mask_mov_ps(values, static_cast<__mmask16>(~((1u << (last + 1)) - 1)),
                                _mm512_set1_ps(__builtin_inff()));
    last_interval = _mm512_set1_epi32(last - 1);
  }

  __mmask16 operator()(__m512 x, const UnitScales& u, int k, __m512 random, __m512i* code) const {
    const __m512 inverse = _mm512_load_ps(u.inverse + k), a = _mm512_mul_ps(x, inverse);
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    __m512i i = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int half = 8; half > 0; half /= 2) {
      const __m512i probe = _mm512_add_epi32(i, _mm512_set1_epi32(half));
      i = _mm512_mask_mov_epi32(
          i, _mm512_cmp_ps_mask(_mm512_permutexvar_ps(probe, bounds), a, _CMP_LE_OQ), probe);
    }
    i = _mm512_min_epi32(i, last_interval);
    const __m512i one = _mm512_set1_epi32(1);
    const __m512 low = _mm512_permutexvar_ps(i, values);
    const __m512 high = _mm512_permutexvar_ps(_mm512_add_epi32(i, one), values);
    __mmask16 up;
    if constexpr (kStochastic) {
      up = _mm512_cmp_ps_mask(
          random, _mm512_div_ps(_mm512_sub_ps(a, low), _mm512_sub_ps(high, low)), _CMP_LT_OQ);
    } else {
      up = _mm512_cmp_ps_mask(a, _mm512_mul_ps(_mm512_add_ps(low, high), _mm512_set1_ps(0.5f)),
                              _CMP_GT_OQ);
    }
    i = _mm512_mask_add_epi32(i, up, i, one);
    const __mmask16 coded = _mm512_cmp_ps_mask(inverse, _mm512_setzero_ps(), _CMP_NEQ_OQ) & ~nan;
    *code = _mm512_maskz_mov_epi32(coded, i);
    return nan;
  }
};

template <bool kStochastic, class Code>
static inline uint64_t round_unit(const QuantizeParams& p, int64_t first, const UnitScales& u,
                                  const Code& coder, uint8_t* codes) {
  uint64_t nan = 0;
  __m512i words[4] = {};
  if constexpr (kStochastic) philox_64(p.key, static_cast<uint64_t>(first) / 4, p.stream, 0, words);
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    __m512i code;
    nan |=
        uint64_t{coder(_mm512_loadu_ps(p.x + first + 16 * g), u, 16 * g, unit_16(words[g]), &code)}
        << 16 * g;
    _mm_store_si128(reinterpret_cast<__m128i*>(codes + 16 * g), _mm512_cvtepi32_epi8(code));
  }
  return nan;
}

template <bool kStochastic>
static inline uint64_t round_any(const QuantizeParams& p, int64_t first, const UnitScales& u,
                                 uint8_t* codes) {
  switch (p.format.scheme) {
    case Scheme::symmetric:
      return round_unit<kStochastic>(p, first, u, Coder<Scheme::symmetric, kStochastic>(p), codes);
    case Scheme::affine:
      return round_unit<kStochastic>(p, first, u, Coder<Scheme::affine, kStochastic>(p), codes);
    default: break;
  }
  const LevelTables& tables = p.format.levels;
  const int64_t table = tables.stride == 0 ? 0 : u.single;
  if (table < 0 || tables.count > 16 || tables.last[table] == 0)
    return round_unit_ref(p, first, kUnit, u, codes);
  return round_unit<kStochastic>(p, first, u, Coder<Scheme::levels, kStochastic>(tables, table),
                                 codes);
}

struct Avx512 {
  static uint64_t round(const QuantizeParams& p, int64_t first, const UnitScales& u,
                        uint8_t* codes) {
    return p.stochastic ? round_any<true>(p, first, u, codes)
                        : round_any<false>(p, first, u, codes);
  }

  static void decode(const Format& f, const uint8_t* codes, const UnitScales& u, float* y) {
    const int32_t q = symmetric_max(f.bits);
    const bool symmetric = f.scheme == Scheme::symmetric, levels = f.scheme == Scheme::levels;
    const int64_t table = f.levels.stride == 0 ? 0 : u.single;
    if (levels && table < 0) return decode_unit_ref(f, codes, kUnit, u, y);
    const float* values = levels ? f.levels.values + table * f.levels.stride : nullptr;
    const __m512i valid = _mm512_set1_epi32(symmetric ? 2 * q + 1 : levels ? f.levels.count : 256);
    const __m512i origin = _mm512_set1_epi32(symmetric ? q : 0);
    const __m512 small =
        levels && f.levels.count <= 16
            ? _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << f.levels.count) - 1), values)
            : _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int k = 0; k < kUnit; k += 16) {
      const __m512i code =
          _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(codes + k)));
      const __mmask16 ok = _mm512_cmplt_epi32_mask(code, valid);
      __m512 v;
      if (!levels) {
        v = _mm512_cvtepi32_ps(_mm512_sub_epi32(code, origin));
      } else if (f.levels.count <= 16) {
        v = _mm512_permutexvar_ps(code, small);
      } else {
        v = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), ok, code, values, 4);
      }
      const __m512 scaled = _mm512_mul_ps(v, _mm512_load_ps(u.step + k));
      const __m512 sum = _mm512_add_ps(scaled, _mm512_load_ps(u.lo + k));
      _mm512_storeu_ps(y + k, _mm512_mask_mov_ps(_mm512_set1_ps(__builtin_nanf("")), ok, sum));
    }
  }

  static void pack(const uint8_t* codes, int bits, uint8_t* out) { pack_64(codes, bits, out); }
  static void unpack(const uint8_t* packed, int bits, uint8_t* codes) {
    unpack_64(packed, bits, codes);
  }
};

}  // namespace

const QuantizeKernels quantize_avx512 = kernels_of<Avx512>();

}  // namespace torchext::cpu
