// Largest magnitude, minimum and maximum per channel. All three are order-free, so any split over
// threads gives the same result.
#pragma once

#include <cfloat>
#include <cstdint>

#include "half.h"
#include "rounding.h"

namespace torchext {

/// `magnitude` holds the bits of |x| as an integer: NaN > Inf > every number.
struct Range {
  uint32_t magnitude = 0;
  float lo = __builtin_inff();
  float hi = -__builtin_inff();
};

constexpr uint32_t kInfinityBits = 0x7F800000u;

/// The smallest spacing of the symmetric grid that covers a magnitude.
TX_HD float symmetric_spacing(uint32_t magnitude, int bits) {
  return effective_step(float_from_bits(magnitude) / static_cast<float>(symmetric_max(bits)));
}

/// Points lo + step * code.
struct AffineGrid {
  float lo, step;
};

/// The smallest grid from lo to hi, of finite values; step is infinite where float32 cannot span
/// them.
TX_HD AffineGrid affine_grid(float lo, float hi, int bits) {
  lo += 0.0f;  // no -0
  const float top = static_cast<float>((1 << bits) - 1);
  const double spread = static_cast<double>(hi) - static_cast<double>(lo);
  if (spread > FLT_MAX) return {lo, __builtin_inff()};
  float step = effective_step(static_cast<float>(spread / top));
  // The top level must reach hi, or the largest values would be clamped and biased.
  while (step > 0.0f && lo + top * step < hi) step = float_from_bits(float_bits(step) + 1);
  return {lo, step};
}

namespace cpu {

/// Widens `range` by x[0..n).
void widen_range(const float* x, int64_t n, Range& range) noexcept;

/// Widens ranges[c] by column c of a [rows, columns] array.
void widen_columns(const float* x, int64_t rows, int64_t columns, Range* ranges) noexcept;

/// Widens `range` by another one.
void merge_range(const Range& other, Range& range) noexcept;

}  // namespace cpu
}  // namespace torchext
