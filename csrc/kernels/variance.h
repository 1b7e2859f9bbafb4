// The exact variance of one stochastically rounded value, in double.
#pragma once

#include "quantize.h"

namespace torchext {

/// E (Q(x) - E Q(x))^2 of the float32 rule on a grid of integers 0..top moved by `origin`:
/// step^2 f (1 - f) with f the fraction of t; 0 where the value saturates or lies on the grid.
TX_HD double grid_variance(float t, float lowest, float highest, float step) {
  if (t <= lowest || t >= highest) return 0.0;
  const double f = static_cast<double>(t) - static_cast<double>(floor_of(t));
  return static_cast<double>(step) * step * (f * (1.0 - f));  // NaN passes through
}

/// (hi - a)(a - lo) between levels i and i + 1, in units of the scale.
TX_HD double level_variance_at(float a, const float* levels, int32_t i, float scale) {
  const double value = a, lo = levels[i], hi = levels[i + 1];
  return static_cast<double>(scale) * scale * ((hi - value) * (value - lo));
}

/// The same for the interval of a; 0 outside the table.
static inline double level_variance(float a, const float* levels, int32_t last, float scale) {
  if (a != a) return static_cast<double>(a);
  if (last == 0 || a <= levels[0] || a >= levels[last]) return 0.0;
  return level_variance_at(a, levels, level_below(a, levels, last), scale);
}

/// The variance of element x of a channel.
static inline double rounding_variance(const Format& f, float x, int64_t channel) {
  const float inverse = f.scales.inverse[channel], step = f.scales.step[channel];
  if (f.scheme == Scheme::symmetric) {
    const float q = static_cast<float>(symmetric_max(f.bits));
    return grid_variance(x * inverse, -q, q, step);
  }
  if (f.scheme == Scheme::affine) {
    return grid_variance((x - f.scales.lo[channel]) * inverse, 0.0f,
                         static_cast<float>((1 << f.bits) - 1), step);
  }
  const int64_t table = f.levels.stride == 0 ? 0 : channel;
  const int32_t last = inverse == 0.0f ? 0 : f.levels.last[table];
  return level_variance(x * inverse, f.levels.values + table * f.levels.stride, last, step);
}

}  // namespace torchext
