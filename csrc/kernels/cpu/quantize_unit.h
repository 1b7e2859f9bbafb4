// What every instruction set shares: the loop over units of 64 elements, and one unit by the scalar
// rules. An instruction set supplies a struct with round(), decode(), pack() and unpack() of a
// unit.
#pragma once

#include <cstring>

#include "../quantize.h"

namespace torchext::cpu {

constexpr int64_t kUnit = 64;

/// The scales of one unit, spread to one entry per element so that vector code has a single form.
struct UnitScales {
  alignas(64) float inverse[kUnit];
  alignas(64) float step[kUnit];
  alignas(64) float lo[kUnit];
  int64_t channel[kUnit];  // of each element where `single` is -1
  int64_t single = -1;     // the channel of the whole unit
};

static inline void spread_one(const Scales& s, int64_t channel, UnitScales& u) {
  if (u.single == channel) return;
  u.single = channel;
  for (int k = 0; k < kUnit; ++k) {
    u.inverse[k] = s.inverse[channel];
    u.step[k] = s.step[channel];
    u.lo[k] = s.lo ? s.lo[channel] : 0.0f;
  }
}

static inline void spread_scales(const Scales& s, int64_t first, UnitScales& u) {
  if (s.channels == 1) return spread_one(s, 0, u);
  const int64_t row = first / s.inner;
  int64_t channel = row % s.channels, rest = s.inner - (first - row * s.inner);
  if (rest >= kUnit) return spread_one(s, channel, u);
  u.single = -1;
  for (int k = 0; k < kUnit; ++k) {
    u.inverse[k] = s.inverse[channel];
    u.step[k] = s.step[channel];
    u.lo[k] = s.lo ? s.lo[channel] : 0.0f;
    u.channel[k] = channel;
    if (--rest == 0) {
      rest = s.inner;
      channel = channel + 1 == s.channels ? 0 : channel + 1;
    }
  }
}

/// Rounds `count` elements from `first` by the scalar rules; bit k of the result: element k is NaN.
static inline uint64_t round_unit_ref(const QuantizeParams& p, int64_t first, int count,
                                      const UnitScales& u, uint8_t* codes) {
  const Format& f = p.format;
  const int32_t top = f.scheme == Scheme::symmetric ? symmetric_max(f.bits) : (1 << f.bits) - 1;
  uint64_t nan = 0;
  Words r{};
  for (int k = 0; k < count; ++k) {
    if (p.stochastic && k % 4 == 0)
      r = draw4(p.key, static_cast<uint64_t>(first + k) / 4, p.stream, 0);
    const float x = p.x[first + k], inverse = u.inverse[k], random = unit(r.w[k % 4]);
    int32_t code;
    if (f.scheme == Scheme::symmetric) {
      code = p.stochastic ? symmetric_stochastic(x, inverse, top, random)
                          : symmetric_nearest(x, inverse, top);
    } else if (f.scheme == Scheme::affine) {
      code = p.stochastic ? affine_stochastic(x, u.lo[k], inverse, top, random)
                          : affine_nearest(x, u.lo[k], inverse, top);
    } else {
      const int64_t table = f.levels.stride == 0 ? 0 : u.single >= 0 ? u.single : u.channel[k];
      const float* levels = f.levels.values + table * f.levels.stride;
      const int32_t last = inverse == 0.0f ? 0 : f.levels.last[table];  // a zero scale has code 0
      const float a = x * inverse;
      code =
          p.stochastic ? level_stochastic(a, levels, last, random) : level_nearest(a, levels, last);
    }
    if (code < 0) {
      nan |= uint64_t{1} << k;
      code = 0;
    }
    codes[k] = static_cast<uint8_t>(code);
  }
  return nan;
}

/// Decodes `count` codes by the scalar rules.
static inline void decode_unit_ref(const Format& f, const uint8_t* codes, int count,
                                   const UnitScales& u, float* y) {
  for (int k = 0; k < count; ++k) {
    if (f.scheme == Scheme::symmetric) {
      y[k] = decode_symmetric(codes[k], u.step[k], symmetric_max(f.bits));
    } else if (f.scheme == Scheme::affine) {
      y[k] = decode_affine(codes[k], u.lo[k], u.step[k]);
    } else {
      const int64_t table = f.levels.stride == 0 ? 0 : u.single >= 0 ? u.single : u.channel[k];
      y[k] = decode_level(codes[k], f.levels.values + table * f.levels.stride, f.levels.count,
                          u.step[k]);
    }
  }
}

template <class Isa>
static bool quantize_range(const QuantizeParams& p, int64_t begin, int64_t end) noexcept {
  UnitScales u;
  alignas(64) uint8_t codes[kUnit];
  uint64_t nan = 0;
  for (int64_t i = begin; i < end; i += kUnit) {
    uint8_t* out = p.codes + i / kUnit * 8 * p.format.bits;
    spread_scales(p.format.scales, i, u);
    if (end - i >= kUnit) {
      nan |= Isa::round(p, i, u, codes);
      Isa::pack(codes, p.format.bits, out);
    } else {
      nan |= round_unit_ref(p, i, static_cast<int>(end - i), u, codes);
      pack_unit(codes, static_cast<int>(end - i), p.format.bits, out);
    }
  }
  return nan != 0;
}

template <class Isa>
static void dequantize_range(const QuantizeParams& p, int64_t begin, int64_t end) noexcept {
  UnitScales u;
  alignas(64) uint8_t codes[kUnit];
  for (int64_t i = begin; i < end; i += kUnit) {
    const uint8_t* in = p.codes + i / kUnit * 8 * p.format.bits;
    spread_scales(p.format.scales, i, u);
    if (end - i >= kUnit) {
      Isa::unpack(in, p.format.bits, codes);
      Isa::decode(p.format, codes, u, p.y + i);
    } else {
      unpack_unit(in, static_cast<int>(end - i), p.format.bits, codes);
      decode_unit_ref(p.format, codes, static_cast<int>(end - i), u, p.y + i);
    }
  }
}

template <class Isa>
static void round_trip_range(const QuantizeParams& p, int64_t begin, int64_t end) noexcept {
  UnitScales u;
  alignas(64) uint8_t codes[kUnit];
  for (int64_t i = begin; i < end; i += kUnit) {
    spread_scales(p.format.scales, i, u);
    uint64_t nan;
    if (end - i >= kUnit) {
      nan = Isa::round(p, i, u, codes);
      Isa::decode(p.format, codes, u, p.y + i);
    } else {
      nan = round_unit_ref(p, i, static_cast<int>(end - i), u, codes);
      decode_unit_ref(p.format, codes, static_cast<int>(end - i), u, p.y + i);
    }
    for (; nan != 0; nan &= nan - 1) p.y[i + __builtin_ctzll(nan)] = __builtin_nanf("");
  }
}

template <class Isa>
static void pack_range(const uint8_t* codes, int bits, uint8_t* packed, int64_t begin,
                       int64_t end) noexcept {
  for (int64_t i = begin; i < end; i += kUnit) {
    uint8_t* out = packed + i / kUnit * 8 * bits;
    if (end - i >= kUnit) {
      Isa::pack(codes + i, bits, out);
    } else {
      pack_unit(codes + i, static_cast<int>(end - i), bits, out);
    }
  }
}

template <class Isa>
static void unpack_range(const uint8_t* packed, int bits, uint8_t* codes, int64_t begin,
                         int64_t end) noexcept {
  for (int64_t i = begin; i < end; i += kUnit) {
    const uint8_t* in = packed + i / kUnit * 8 * bits;
    if (end - i >= kUnit) {
      Isa::unpack(in, bits, codes + i);
    } else {
      unpack_unit(in, static_cast<int>(end - i), bits, codes + i);
    }
  }
}

/// The table of one instruction set.
template <class Isa>
static constexpr QuantizeKernels kernels_of() {
  return {quantize_range<Isa>, dequantize_range<Isa>, round_trip_range<Isa>, pack_range<Isa>,
          unpack_range<Isa>};
}

}  // namespace torchext::cpu
