// The integer arithmetic of HALP, one number at a time; the CPU reference and CUDA share it.
#pragma once

#include <cmath>
#include <cstdint>

#include "../rounding.h"

namespace torchext::cpu {

TX_HD int32_t saturate16(int32_t v) { return v > 32767 ? 32767 : v < -32768 ? -32768 : v; }

/// z' = clamp(z + (e >> shift), -most, most), counting what was clamped.
template <class Count>
TX_HD int32_t halp_land(int32_t e, int shift, int32_t z, int32_t most, Count* clips) {
  const int32_t moved = z + (e >> shift);
  const int32_t kept = moved > most ? most : moved < -most ? -most : moved;
  *clips += kept != moved;
  return kept;
}

/// z' = clamp(z + ((r - gamma x - h - c z) >> shift), -most, most), counting what was clamped.
/// Narrow (z8) saturates r - gamma x, minus h, minus c z to 16 bits in turn.
template <bool kNarrow, int kShift, class Count>
TX_HD int32_t halp_move(int32_t noise, int32_t gamma, int32_t x, int32_t drift, int32_t decay,
                        int32_t z, Count* clips) {
  int32_t e = noise - gamma * x;
  if (kNarrow) {
    e = saturate16(saturate16(e) - drift);
    if (decay != 0) e = saturate16(e - decay * z);
  } else {
    e = e - drift - decay * z;
  }
  return halp_land(e, kShift, z, kNarrow ? 127 : 32767, clips);
}

/// gamma: t rounded by the uniform u.
template <class Count>
TX_HD int32_t halp_coefficient(float t, float u, int32_t most, Count* clips) {
  const float code = round_stochastic(t, u);
  const auto limit = static_cast<float>(most);
  const float kept = code > limit ? limit : code >= -limit ? code : -limit;
  *clips += kept != code;
  return static_cast<int32_t>(kept);
}

/// h: the target rounded by the uniform u, in float32 or float64.
template <class T, class Count>
TX_HD int32_t halp_drift(T target, T u, T most, Count* clips) {
  const T low = std::floor(target);
  const T code = low + (u < target - low ? T{1} : T{0});
  const T kept = code > most ? most : code < -most ? -most : code;
  *clips += kept != code;
  return static_cast<int32_t>(kept);
}

/// c: `each` units of decay a step, rounded by the uniform u.
TX_HD int32_t halp_decay(double each, double u) {
  const double low = std::floor(each);
  return static_cast<int32_t>(low + (u < each - low ? 1.0 : 0.0));
}

}  // namespace torchext::cpu
