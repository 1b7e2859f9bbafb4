// The rounding rules, one number at a time; the CPU reference kernels and CUDA share them.
//
// Every rule is a fixed sequence of IEEE float32 operations (no contraction), so that a vector twin
// that does the same operations gives the same code. u is a 24-bit uniform (philox.h: unit()).
// The comparison u < t - floor(t) is exact where floor(t + u) would lose the low bits of u.
#pragma once

#include <cstdint>
#include <cstring>

#include "philox.h"

namespace torchext {

#if defined(__CUDACC__)
TX_HD float floor_of(float t) { return floorf(t); }
TX_HD float nearest_even(float t) { return rintf(t); }
#else
TX_HD float floor_of(float t) { return __builtin_floorf(t); }
TX_HD float nearest_even(float t) { return __builtin_rintf(t); }
#endif

/// The integer that a float below 2^22 in magnitude holds: GPUs add faster than they convert.
TX_HD int32_t integer_of(float n) {
  const float shifted = n + 0x1.8p23f;
  int32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  return bits - 0x4B400000;
}

/// Spacings below the smallest normal number count as zero: 1/step would overflow.
constexpr float kSmallestStep = 0x1p-126f;

/// 1/step in one IEEE division; 0 for a spacing that counts as zero.
TX_HD float inverse_step(float step) { return step >= kSmallestStep ? 1.0f / step : 0.0f; }

/// The spacing decoders multiply with.
TX_HD float effective_step(float step) { return step >= kSmallestStep ? step : 0.0f; }

/// floor(t) or floor(t) + 1; goes up with probability ceil((t - floor t) 2^24) / 2^24.
TX_HD float round_stochastic(float t, float u) {
  const float low = floor_of(t);
  return low + (u < t - low ? 1.0f : 0.0f);
}

/// Largest code magnitude of the symmetric grid {-Q..Q}: 2^(bits-1) - 1.
TX_HD int32_t symmetric_max(int bits) { return (1 << (bits - 1)) - 1; }

/// Codes of the symmetric grid are q + Q in 0..2Q; 2Q + 1 is reserved for NaN and decodes to NaN.
TX_HD int32_t symmetric_code(float rounded, int32_t qmax) {
  const float q = static_cast<float>(qmax);
  if (rounded != rounded) return 2 * qmax + 1;
  const float n = rounded < -q ? -q : rounded > q ? q : rounded;
  return integer_of(n) + qmax;
}

/// t = x/step on the symmetric grid, stochastic: E[code - Q] = t inside [-Q, Q].
TX_HD int32_t symmetric_stochastic(float x, float inverse, int32_t qmax, float u) {
  return symmetric_code(round_stochastic(x * inverse, u), qmax);
}

/// Ties go to the even code offset, as torch.round does.
TX_HD int32_t symmetric_nearest(float x, float inverse, int32_t qmax) {
  return symmetric_code(nearest_even(x * inverse), qmax);
}

TX_HD float decode_symmetric(int32_t code, float step, int32_t qmax) {
  if (code > 2 * qmax) return __builtin_nanf("");
  return static_cast<float>(code - qmax) * step + 0.0f;  // -q * 0 is -0: the sum makes it +0
}

/// Codes 0..top of the grid lo + step * code; -1 for NaN, which has no code.
TX_HD int32_t affine_code(float rounded, int32_t top) {
  const float limit = static_cast<float>(top);
  if (rounded != rounded) return -1;
  return integer_of(rounded < 0.0f ? 0.0f : rounded > limit ? limit : rounded);
}

TX_HD int32_t affine_stochastic(float x, float lo, float inverse, int32_t top, float u) {
  return affine_code(round_stochastic((x - lo) * inverse, u), top);
}

TX_HD int32_t affine_nearest(float x, float lo, float inverse, int32_t top) {
  return affine_code(nearest_even((x - lo) * inverse), top);
}

/// Product and sum are rounded apart; a lower end of -0 decodes to +0.
TX_HD float decode_affine(int32_t code, float lo, float step) {
  return static_cast<float>(code) * step + lo;
}

/// Lower neighbour of a in an ascending table whose last distinct entry is `last` >= 1; the top
/// interval's lower end for values above the table.
TX_HD int32_t level_below(float a, const float* levels, int32_t last) {
  int32_t below = 0, above = last;
  while (above - below > 1) {
    const int32_t middle = (below + above) / 2;
    if (levels[middle] <= a) {
      below = middle;
    } else {
      above = middle;
    }
  }
  return below;
}

/// Position of a between its two levels: below 0 under the table, above 1 over it.
TX_HD float level_fraction(float a, const float* levels, int32_t i) {
  return (a - levels[i]) / (levels[i + 1] - levels[i]);
}

/// Between levels i and i + 1: the upper one with probability level_fraction.
TX_HD int32_t level_stochastic_at(float a, const float* levels, int32_t i, float u) {
  return i + (u < level_fraction(a, levels, i) ? 1 : 0);
}

/// The nearer of levels i and i + 1; a value exactly between the two goes to the lower one.
TX_HD int32_t level_nearest_at(float a, const float* levels, int32_t i) {
  return i + (a > (levels[i] + levels[i + 1]) * 0.5f ? 1 : 0);
}

/// Code in an ascending table, -1 for NaN.
TX_HD int32_t level_stochastic(float a, const float* levels, int32_t last, float u) {
  if (a != a) return -1;
  return last == 0 ? 0 : level_stochastic_at(a, levels, level_below(a, levels, last), u);
}
TX_HD int32_t level_nearest(float a, const float* levels, int32_t last) {
  if (a != a) return -1;
  return last == 0 ? 0 : level_nearest_at(a, levels, level_below(a, levels, last));
}

TX_HD float decode_level(int32_t code, const float* levels, int32_t count, float scale) {
  return code < count ? levels[code] * scale + 0.0f : __builtin_nanf("");
}

}  // namespace torchext
