// The rounding rules of csrc/kernels/rounding.h for a thread: one struct a scheme, chosen at
// compile time, whose scales and tables are read and prepared on the device.
//
// The host never sees a scale, so what the CPU refuses has a result here: a spacing that is
// negative or not finite, or a lower end that is not finite, makes NaN of every value of its
// channel.
#pragma once

#include "kernels/variance.h"
#include "tiles.h"

namespace torchext::cuda {

/// What an element needs of its channel.
struct Spacing {
  float inverse, step, lo;
  const float* table;  // tables per channel only
};

TX_DEVICE Spacing spacing_of(const float* scale, int64_t channel) {
  const float step = scale ? scale[channel] : 1.0f;
  if (!(step >= 0.0f && step < __builtin_inff()))
    return {__builtin_nanf(""), __builtin_nanf(""), 0.0f, nullptr};
  return {inverse_step(step), effective_step(step), 0.0f, nullptr};
}

class SymmetricRule {
 public:
  static constexpr int kSharedWords = 0;
  TX_DEVICE SymmetricRule(const DeviceFormat& f, const Thread&)
      : scale_(f.scale), qmax_(symmetric_max(f.bits)) {}

  TX_DEVICE Spacing spacing(int64_t channel) const { return spacing_of(scale_, channel); }

  /// -1 for a value without a code.
  template <bool kStochastic>
  TX_DEVICE int32_t round(float x, const Spacing& s, float u) const {
    return kStochastic ? symmetric_stochastic(x, s.inverse, qmax_, u)
                       : symmetric_nearest(x, s.inverse, qmax_);
  }
  TX_DEVICE float decode(int32_t code, const Spacing& s) const {
    return decode_symmetric(code, s.step, qmax_);
  }
  TX_DEVICE double variance(float x, const Spacing& s) const {
    const auto q = static_cast<float>(qmax_);
    return grid_variance(x * s.inverse, -q, q, s.step);
  }
  TX_DEVICE int32_t missing() const { return 0; }  // every value has a code

 private:
  const float* scale_;
  int32_t qmax_;
};

class AffineRule {
 public:
  static constexpr int kSharedWords = 0;
  TX_DEVICE AffineRule(const DeviceFormat& f, const Thread&)
      : scale_(f.scale), top_((1 << f.bits) - 1) {}

  TX_DEVICE Spacing spacing(int64_t channel) const {
    Spacing s = spacing_of(scale_ + 1 + channel, channel);
    s.lo = scale_[2 * channel] + 0.0f;
    if (!(s.lo - s.lo == 0.0f)) s.inverse = s.step = s.lo = __builtin_nanf("");
    return s;
  }
  template <bool kStochastic>
  TX_DEVICE int32_t round(float x, const Spacing& s, float u) const {
    return kStochastic ? affine_stochastic(x, s.lo, s.inverse, top_, u)
                       : affine_nearest(x, s.lo, s.inverse, top_);
  }
  TX_DEVICE float decode(int32_t code, const Spacing& s) const {
    return decode_affine(code, s.lo, s.step);
  }
  TX_DEVICE double variance(float x, const Spacing& s) const {
    return grid_variance((x - s.lo) * s.inverse, 0.0f, static_cast<float>(top_), s.step);
  }
  TX_DEVICE int32_t missing() const { return 0; }

 private:
  const float* scale_;
  int32_t top_;
};

/// Steps of a search over the intervals of a table of `count` levels: half the power of two that
/// holds them.
TX_DEVICE int32_t first_search_step(int32_t count) {
  int32_t width = 1;
  while (width < count - 1) width *= 2;
  return width / 2;
}

/// Tables of levels, without branches: an interval starts at every level below the last distinct
/// one, so that padding needs no count. Table supplies level pointers and where intervals start.
template <class Table>
class LevelRule {
 public:
  static constexpr int kSharedWords = Table::kSharedWords;
  TX_DEVICE LevelRule(const DeviceFormat& f, const Thread& t)
      : scale_(f.scale),
        count_(f.level_count),
        step_(first_search_step(f.level_count)),
        missing_(f.level_count < 1 << f.bits ? f.level_count : 0),
        table_(f, t) {}

  TX_DEVICE Spacing spacing(int64_t channel) const {
    Spacing s = spacing_of(scale_, channel);
    s.table = table_.of(channel);
    return s;
  }
  template <bool kStochastic>
  TX_DEVICE int32_t round(float x, const Spacing& s, float u) const {
    const float a = x * s.inverse;
    if (a != a) return -1;
    const float* levels = table_.levels(s);
    if (s.inverse == 0.0f || levels[0] == levels[count_ - 1]) return 0;
    const int32_t i = below(a, s);
    return kStochastic ? level_stochastic_at(a, levels, i, u) : level_nearest_at(a, levels, i);
  }
  TX_DEVICE float decode(int32_t code, const Spacing& s) const {
    return decode_level(code, table_.levels(s), count_, s.step);
  }
  TX_DEVICE double variance(float x, const Spacing& s) const {
    const float a = x * s.inverse;
    if (a != a) return static_cast<double>(a);
    const float* levels = table_.levels(s);
    if (s.inverse == 0.0f || a <= levels[0] || a >= levels[count_ - 1]) return 0.0;
    return level_variance_at(a, levels, below(a, s), s.step);
  }
  /// A code beyond the table, which decodes to NaN, where the bits have one.
  TX_DEVICE int32_t missing() const { return missing_; }

  /// The interval of x and its position there, as several draws need them; false for NaN.
  TX_DEVICE bool locate(float x, const Spacing& s, int32_t* i, float* fraction) const {
    const float* levels = table_.levels(s);
    *i = 0;
    *fraction = 0.0f;
    if (x != x) return false;
    if (levels[0] == levels[count_ - 1]) return true;
    *i = below(x, s);
    *fraction = level_fraction(x, levels, *i);
    return true;
  }

 private:
  TX_DEVICE int32_t below(float a, const Spacing& s) const {
    int32_t at = 0;
    for (int32_t step = step_; step > 0; step /= 2)
      if (table_.starts_below(at + step, a, s)) at += step;
    return at;
  }

  const float* scale_;
  int32_t count_, step_, missing_;
  Table table_;
};

/// One table for all channels, in shared memory.
class SharedTable {
 public:
  static constexpr int kMostLevels = 256;
  static constexpr int kSharedWords = 2 * kMostLevels;

  TX_DEVICE SharedTable(const DeviceFormat& f, const Thread& t)
      : starts_(t.shared<float>()), levels_(t.shared<float>() + kMostLevels) {
    const float top = f.levels[f.level_count - 1];
    for (int k = t.thread(); k < kMostLevels; k += t.threads()) {
      const float level = k < f.level_count ? f.levels[k] : top;
      levels_[k] = level;
      starts_[k] = level < top ? level : __builtin_nanf("");  // NaN: no value is at or above it
    }
    t.sync();
  }
  TX_DEVICE const float* of(int64_t) const { return nullptr; }
  TX_DEVICE const float* levels(const Spacing&) const { return levels_; }
  TX_DEVICE bool starts_below(int32_t k, float a, const Spacing&) const { return starts_[k] <= a; }

 private:
  float *starts_, *levels_;
};

/// A table for each channel, read through the cache.
class ChannelTables {
 public:
  static constexpr int kSharedWords = 0;

  TX_DEVICE ChannelTables(const DeviceFormat& f, const Thread&)
      : values_(f.levels), stride_(f.table_stride), last_(f.level_count - 1) {}
  TX_DEVICE const float* of(int64_t channel) const { return values_ + channel * stride_; }
  TX_DEVICE const float* levels(const Spacing& s) const { return s.table; }
  TX_DEVICE bool starts_below(int32_t k, float a, const Spacing& s) const {
    const float level = s.table[k < last_ ? k : last_];
    return level <= a && level < s.table[last_];
  }

 private:
  const float* values_;
  int64_t stride_;
  int32_t last_;
};

/// Calls call(rule type) for a format: launch functions pick their template by it.
template <class Call>
cudaError_t with_rule(const DeviceFormat& f, const Call& call) noexcept {
  switch (f.scheme) {
    case Scheme::symmetric: return call(static_cast<SymmetricRule*>(nullptr));
    case Scheme::affine: return call(static_cast<AffineRule*>(nullptr));
    default:
      return f.table_stride == 0 ? call(static_cast<LevelRule<SharedTable>*>(nullptr))
                                 : call(static_cast<LevelRule<ChannelTables>*>(nullptr));
  }
}

}  // namespace torchext::cuda
