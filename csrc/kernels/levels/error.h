// The kernels of rounding errors: sums over values of what rounding to given levels does to them.
#pragma once

#include <cstdint>

#include "exact_sum.h"

namespace torchext::levels {

/// Values with their weights. Powers of two bring both near 1, so that no square leaves the range.
struct WeightedValues {
  const float* x32;      // one of
  const double* x64;     // these two
  const double* weight;  // not negative; null: 1 each
  double scale = 1, weight_scale = 1;
};

constexpr int64_t kRegisterWidth = 32;  // tables up to this width may be read into registers

/// A table as the kernels search it: the interval of v is the last i < width with rung[i] <= v, or
/// 0. Arrays are readable to kRegisterWidth, `level` to one more.
struct LevelTable {
  const double* level;  // ascending, the last one again and again
  const double* rung;   // level[i] up to the last interval, infinity beyond
  int64_t width;        // a power of two
};

/// Sums over values, in scaled units.
struct Errors {
  ExactSum variance;    // w (b - v)(v - a) of the values between the levels a and b
  ExactSum bias2;       // squared distance to the end of the table, or to the nearest level
  int64_t clipped = 0;  // values of positive weight beyond the table
};

/// Adds values [begin, end). Stochastic rounding varies inside the table and is biased beyond it;
/// nearest rounding is biased everywhere.
using AddErrorsFn = void(const WeightedValues& v, const LevelTable& table, bool stochastic,
                         int64_t begin, int64_t end, Errors* out) noexcept;

AddErrorsFn add_errors_ref, add_errors_avx2, add_errors_avx512;

/// The variant of the instruction set in use. All give the same bits.
AddErrorsFn* add_errors() noexcept;

}  // namespace torchext::levels
