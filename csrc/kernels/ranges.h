// Largest magnitude, minimum and maximum per channel. All three are order-free, so any split over
// threads gives the same result.
#pragma once

#include <cstdint>

namespace torchext {

/// `magnitude` holds the bits of |x| as an integer: NaN > Inf > every number.
struct Range {
  uint32_t magnitude = 0;
  float lo = __builtin_inff();
  float hi = -__builtin_inff();
};

constexpr uint32_t kInfinityBits = 0x7F800000u;

namespace cpu {

/// Widens `range` by x[0..n).
void widen_range(const float* x, int64_t n, Range& range) noexcept;

/// Widens ranges[c] by column c of a [rows, columns] array.
void widen_columns(const float* x, int64_t rows, int64_t columns, Range* ranges) noexcept;

/// Widens `range` by another one.
void merge_range(const Range& other, Range& range) noexcept;

}  // namespace cpu
}  // namespace torchext
