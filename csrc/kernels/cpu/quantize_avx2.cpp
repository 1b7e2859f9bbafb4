#include "pack_bmi2.h"
#include "philox_avx2.h"
#include "quantize_unit.h"

namespace torchext::cpu {
namespace {

constexpr int kFloor = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

static inline __m256i as_int(__m256 v) { return _mm256_castps_si256(v); }

/// t rounded on the integers; u is used by the stochastic rule only.
template <bool kStochastic>
static inline __m256 round_8(__m256 t, __m256 u) {
  if constexpr (!kStochastic) return _mm256_round_ps(t, kNearest);
  const __m256 low = _mm256_round_ps(t, kFloor);
  const __m256 up = _mm256_cmp_ps(u, _mm256_sub_ps(t, low), _CMP_LT_OQ);
  return _mm256_add_ps(low, _mm256_and_ps(up, _mm256_set1_ps(1.0f)));
}

/// Codes of 8 values; the mask tells which have none.
template <Scheme kScheme, bool kStochastic>
struct Coder {
  __m256 lowest, highest;  // of the rounded value
  __m256i zero, reserved;

  explicit Coder(const QuantizeParams& p) {
    const int32_t q = symmetric_max(p.format.bits), top = (1 << p.format.bits) - 1;
    const bool symmetric = kScheme == Scheme::symmetric;
    lowest = _mm256_set1_ps(symmetric ? static_cast<float>(-q) : 0.0f);
    highest = _mm256_set1_ps(static_cast<float>(symmetric ? q : top));
    zero = _mm256_set1_epi32(symmetric ? q : 0);
    reserved = _mm256_set1_epi32(symmetric ? 2 * q + 1 : 0);
  }

  unsigned operator()(__m256 x, const UnitScales& u, int k, __m256 random, __m256i* code) const {
    if constexpr (kScheme == Scheme::affine) x = _mm256_sub_ps(x, _mm256_load_ps(u.lo + k));
    const __m256 t = _mm256_mul_ps(x, _mm256_load_ps(u.inverse + k));
    const __m256 nan = _mm256_cmp_ps(t, t, _CMP_UNORD_Q);
    const __m256 n = _mm256_max_ps(_mm256_min_ps(round_8<kStochastic>(t, random), highest), lowest);
    *code =
        _mm256_blendv_epi8(_mm256_add_epi32(_mm256_cvttps_epi32(n), zero), reserved, as_int(nan));
    return kScheme == Scheme::symmetric ? 0u : static_cast<unsigned>(_mm256_movemask_ps(nan));
  }
};

/// Up to 16 levels in two registers; four steps of bisection find the lower neighbour.
template <bool kStochastic>
struct Coder<Scheme::levels, kStochastic> {
  __m256 values[2], bounds[2];  // bounds: +Inf after the last distinct level
  __m256i last_interval;

  Coder(const LevelTables& tables, int64_t table) {
    const int32_t last = tables.last[table];
    float value[16] = {}, bound[16];
    for (int i = 0; i < 16; ++i) {
      if (i <= last) value[i] = tables.values[table * tables.stride + i];
      bound[i] = i <= last ? value[i] : __builtin_inff();
    }
    for (int h = 0; h < 2; ++h) {
      values[h] = _mm256_loadu_ps(value + 8 * h);
      bounds[h] = _mm256_loadu_ps(bound + 8 * h);
    }
    last_interval = _mm256_set1_epi32(last - 1);
  }

  static __m256 look_up(const __m256* table, __m256i i) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table[0], i),
                            _mm256_permutevar8x32_ps(table[1], i),
                            _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));  // bit 3 to the sign
  }

  unsigned operator()(__m256 x, const UnitScales& u, int k, __m256 random, __m256i* code) const {
    const __m256 inverse = _mm256_load_ps(u.inverse + k), a = _mm256_mul_ps(x, inverse);
    const __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
    __m256i i = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int half = 8; half > 0; half /= 2) {
      const __m256i probe = _mm256_add_epi32(i, _mm256_set1_epi32(half));
      i = _mm256_blendv_epi8(i, probe,
                             as_int(_mm256_cmp_ps(look_up(bounds, probe), a, _CMP_LE_OQ)));
    }
    i = _mm256_min_epi32(i, last_interval);
    const __m256 low = look_up(values, i);
    const __m256 high = look_up(values, _mm256_add_epi32(i, _mm256_set1_epi32(1)));
    __m256 up;
    if constexpr (kStochastic) {
      up = _mm256_cmp_ps(random, _mm256_div_ps(_mm256_sub_ps(a, low), _mm256_sub_ps(high, low)),
                         _CMP_LT_OQ);
    } else {
      up = _mm256_cmp_ps(a, _mm256_mul_ps(_mm256_add_ps(low, high), _mm256_set1_ps(0.5f)),
                         _CMP_GT_OQ);
    }
    i = _mm256_sub_epi32(i, as_int(up));  // true is -1
    const __m256 coded = _mm256_cmp_ps(inverse, _mm256_setzero_ps(), _CMP_NEQ_OQ);
    *code = _mm256_and_si256(i, as_int(_mm256_andnot_ps(nan, coded)));
    return static_cast<unsigned>(_mm256_movemask_ps(nan));
  }
};

/// 32 codes of 32 bits to bytes, in order.
static inline __m256i to_bytes(const __m256i* code) {
  const __m256i low = _mm256_packus_epi32(code[0], code[1]),
                high = _mm256_packus_epi32(code[2], code[3]);
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high),
                                     _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

template <bool kStochastic, class Code>
static inline uint64_t round_unit(const QuantizeParams& p, int64_t first, const UnitScales& u,
                                  const Code& coder, uint8_t* codes) {
  uint64_t nan = 0;
  for (int half = 0; half < 2; ++half) {
    __m256i words[4] = {}, code[4];
    if constexpr (kStochastic) {
      const uint64_t block = static_cast<uint64_t>(first) / 4 + 8 * static_cast<uint64_t>(half);
      philox_16(p.key, block, p.stream, 0, &words[0], &words[1]);
      philox_16(p.key, block + 4, p.stream, 0, &words[2], &words[3]);
    }
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const int k = 32 * half + 8 * part;
      nan |=
          uint64_t{coder(_mm256_loadu_ps(p.x + first + k), u, k, unit_8(words[part]), &code[part])}
          << k;
    }
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes + 32 * half), to_bytes(code));
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

struct Avx2 {
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
    const __m256i valid = _mm256_set1_epi32(symmetric ? 2 * q + 1 : levels ? f.levels.count : 256);
    const __m256i origin = _mm256_set1_epi32(symmetric ? q : 0);
    for (int k = 0; k < kUnit; k += 8) {
      const __m256i code =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + k)));
      const __m256 ok = _mm256_castsi256_ps(_mm256_cmpgt_epi32(valid, code));
      const __m256 v = levels ? _mm256_mask_i32gather_ps(_mm256_setzero_ps(), values, code, ok, 4)
                              : _mm256_cvtepi32_ps(_mm256_sub_epi32(code, origin));
      const __m256 scaled = _mm256_mul_ps(v, _mm256_load_ps(u.step + k));
      const __m256 sum = _mm256_add_ps(scaled, _mm256_load_ps(u.lo + k));
      _mm256_storeu_ps(y + k, _mm256_blendv_ps(_mm256_set1_ps(__builtin_nanf("")), sum, ok));
    }
  }

  static void pack(const uint8_t* codes, int bits, uint8_t* out) { pack_64(codes, bits, out); }
  static void unpack(const uint8_t* packed, int bits, uint8_t* codes) {
    unpack_64(packed, bits, codes);
  }
};

}  // namespace

const QuantizeKernels quantize_avx2 = kernels_of<Avx2>();

}  // namespace torchext::cpu
