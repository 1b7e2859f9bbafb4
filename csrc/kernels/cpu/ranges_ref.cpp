#include <cstring>

#include "../ranges.h"

namespace torchext::cpu {
namespace {

inline uint32_t magnitude_bits(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits & 0x7FFFFFFFu;
}

// Signed comparison: the top bit is clear, and SSE2 has no unsigned one.
inline uint32_t larger(uint32_t a, uint32_t b) {
  return static_cast<int32_t>(a) > static_cast<int32_t>(b) ? a : b;
}

inline void widen_one(float v, Range& r) {
  r.magnitude = larger(magnitude_bits(v), r.magnitude);
  r.lo = v < r.lo ? v : r.lo;
  r.hi = v > r.hi ? v : r.hi;
}

}  // namespace

void merge_range(const Range& other, Range& range) noexcept {
  range.magnitude = larger(other.magnitude, range.magnitude);
  range.lo = other.lo < range.lo ? other.lo : range.lo;
  range.hi = other.hi > range.hi ? other.hi : range.hi;
}

void widen_range(const float* x, int64_t n, Range& range) noexcept {
  constexpr int kLanes = 16;  // independent lanes, so that the compiler may use vectors
  uint32_t magnitude[kLanes] = {};
  float lo[kLanes], hi[kLanes];
  for (int k = 0; k < kLanes; ++k) {
    lo[k] = range.lo;
    hi[k] = range.hi;
  }
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const float v = x[i + k];
      magnitude[k] = larger(magnitude_bits(v), magnitude[k]);
      lo[k] = v < lo[k] ? v : lo[k];
      hi[k] = v > hi[k] ? v : hi[k];
    }
  }
  for (; i < n; ++i) widen_one(x[i], range);
  for (int k = 0; k < kLanes; ++k) merge_range({magnitude[k], lo[k], hi[k]}, range);
}

void widen_columns(const float* x, int64_t rows, int64_t columns, Range* ranges) noexcept {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) widen_one(x[r * columns + c], ranges[c]);
  }
}

}  // namespace torchext::cpu
