#include <cmath>

#include "error_sums.h"
#include "float_io.h"
#include "grouped.h"
#include "kernels/levels/dd.h"
#include "kernels/levels/exact_sum.h"
#include "kernels/levels/scaling.h"
#include "warp_reduce.h"

namespace torchext::cuda {
namespace {

using levels::DD;
using levels::kSliceBits;

// Three passes: magnitudes (they choose powers of two), the highest slice in use of both sums, and
// the sums of the three slices from it. All are maxima and integer sums, without an order.

constexpr int kKinds = 2, kSlices = 3;  // variance, squared bias; slices of a sum

/// The workspace of a group, zero at first.
struct GroupWork {
  int64_t largest, heaviest;  // bits of doubles, which have their order
  int64_t bad;                // 1: of this group, 2 (in the first): the table of all
  int64_t clipped;
  int64_t top[kKinds];  // highest slice, counted from one below the lowest
  int64_t high[kKinds][kSlices], low[kKinds][kSlices];  // 2^32 high + low, in units of the slice
};
static_assert(sizeof(GroupWork) <= kErrorWords * sizeof(int64_t));

constexpr int kFirstTop = levels::kLowestSlice + 1;

// Not negative: they order like their numbers.
TX_DEVICE int64_t bits_of(double v) { return static_cast<int64_t>(double_bits(v)); }
TX_DEVICE double from_bits(int64_t bits) { return double_from_bits(static_cast<uint64_t>(bits)); }
TX_DEVICE bool is_finite(double v) { return v - v == 0; }

TX_DEVICE GroupWork* work_of(const ErrorSumsParams& p, int64_t group) {
  return reinterpret_cast<GroupWork*>(p.work + kErrorWords * group);
}
TX_DEVICE const double* table_of(const ErrorSumsParams& p, int64_t group) {
  return p.levels + group * p.table_stride;
}

/// Powers of two of a group, as the CPU chooses them.
struct Scaling {
  int power, weight_power;

  TX_DEVICE Scaling(const ErrorSumsParams& p, int64_t group) {
    const double* table = table_of(p, group);
    const GroupWork* work = work_of(p, group);
    double largest = fabs(table[0]), last = fabs(table[p.level_count - 1]);
    if (last > largest) largest = last;
    // float32 is never far enough from 1 by itself.
    if (p.x_type == FloatType::f64 && from_bits(work->largest) > largest)
      largest = from_bits(work->largest);
    power = is_finite(largest) ? levels::scaling_exponent(largest) : 0;
    weight_power = levels::weight_exponent(p.weight ? from_bits(work->heaviest) : 1.0);
  }
};

/// Pass 1.
class MagnitudeVisitor {
 public:
  using Params = ErrorSumsParams;

  TX_DEVICE explicit MagnitudeVisitor(const Params& p) : p_(p) {}
  TX_DEVICE void begin(int64_t) { largest_ = heaviest_ = bad_ = 0; }

  TX_DEVICE void add(int64_t i, int count) {
    for (int e = 0; e < count; ++e) {
      const double x = load_double(p_.x, p_.x_type, i + e), w = p_.weight ? p_.weight[i + e] : 1.0;
      if (!is_finite(x) || !is_finite(w) || w < 0) {
        bad_ = 1;
        continue;
      }
      const int64_t size = w > 0 ? bits_of(fabs(x)) : 0, weight = bits_of(fabs(w));
      largest_ = size > largest_ ? size : largest_;
      heaviest_ = weight > heaviest_ ? weight : heaviest_;
    }
  }
  TX_DEVICE void flush(const Thread& t, int64_t group) {
    largest_ = warp_largest(largest_, t);
    heaviest_ = warp_largest(heaviest_, t);
    bad_ = warp_largest(bad_, t);
    if (t.lane() == 0) flush_one(t, group);
  }
  TX_DEVICE void flush_one(const Thread& t, int64_t group) {
    GroupWork* work = work_of(p_, group);
    t.most(&work->largest, largest_);
    t.most(&work->heaviest, heaviest_);
    if (bad_ != 0) t.most(&work->bad, bad_);
  }

 private:
  const Params& p_;
  int64_t largest_ = 0, heaviest_ = 0, bad_ = 0;
};

/// Terms of a group's elements, as error_ref.cpp has them.
class Terms {
 public:
  TX_DEVICE explicit Terms(const ErrorSumsParams& p) : p_(p) {
    while (width_ < p.level_count - 1) width_ *= 2;
  }
  TX_DEVICE void begin(int64_t group) {
    const Scaling scaling(p_, group);
    table_ = table_of(p_, group);
    scale_ = levels::power_of_two(-scaling.power);
    weight_scale_ = levels::power_of_two(-scaling.weight_power);
    top_ = table_[p_.level_count - 1];
  }

  /// The kind (0: variance, 1: squared bias) and size of the term of element i.
  TX_DEVICE int kind(int64_t i, double* term, bool* clipped) const {
    const double w = p_.weight ? p_.weight[i] * weight_scale_ : 1.0,
                 x = (w == 0 ? table_[0] : load_double(p_.x, p_.x_type, i)) * scale_;
    const int64_t last = p_.level_count - 1;
    int64_t at = 0;
    for (int64_t step = width_ / 2; step > 0; step /= 2) {
      const double level = table_[at + step < last ? at + step : last];
      if (level < top_ && level * scale_ <= x)
        at += step;  // top: the last distinct one and padding
    }
    const double below = x - table_[at] * scale_,
                 above = table_[at < last ? at + 1 : last] * scale_ - x,
                 nearer = below < above ? below : above;
    *clipped = nearer < 0 && w > 0;
    const bool inside = p_.stochastic && nearer >= 0;
    *term = inside ? w * (below * above) : w * (nearer * nearer);
    return inside ? 0 : 1;
  }

 private:
  const ErrorSumsParams& p_;
  const double* table_ = nullptr;
  double scale_ = 1, weight_scale_ = 1, top_ = 0;
  int64_t width_ = 1;
};

/// Pass 2: where the slices of each sum begin, and clamped values.
class TopVisitor {
 public:
  using Params = ErrorSumsParams;

  TX_DEVICE explicit TopVisitor(const Params& p) : p_(p), terms_(p) {}
  TX_DEVICE void begin(int64_t group) {
    terms_.begin(group);
    top_[0] = top_[1] = 0;
    clipped_ = 0;
  }
  TX_DEVICE void add(int64_t i, int count) {
    for (int e = 0; e < count; ++e) {
      double term;
      bool clipped;
      const int kind = terms_.kind(i + e, &term, &clipped);
      const int64_t top = levels::top_slice(term) - kFirstTop;
      if (kind == 0) {
        top_[0] = top > top_[0] ? top : top_[0];
      } else {
        top_[1] = top > top_[1] ? top : top_[1];
      }
      clipped_ += clipped ? 1 : 0;
    }
  }
  TX_DEVICE void flush(const Thread& t, int64_t group) {
    top_[0] = warp_largest(top_[0], t);
    top_[1] = warp_largest(top_[1], t);
    clipped_ = warp_sum(clipped_, t);
    if (t.lane() == 0) flush_one(t, group);
  }
  TX_DEVICE void flush_one(const Thread& t, int64_t group) {
    GroupWork* work = work_of(p_, group);
    t.most(&work->top[0], top_[0]);
    t.most(&work->top[1], top_[1]);
    t.add(&work->clipped, clipped_);
  }

 private:
  const Params& p_;
  Terms terms_;
  int64_t top_[kKinds] = {}, clipped_ = 0;
};

/// The highest slice of a sum that has none is the lowest possible one.
TX_DEVICE int top_of(const GroupWork* work, int kind) {
  return work->top[kind] > 0 ? static_cast<int>(work->top[kind]) + kFirstTop
                             : levels::kLowestSlice + 2;
}

/// Pass 3.
class SliceVisitor {
 public:
  using Params = ErrorSumsParams;

  TX_DEVICE explicit SliceVisitor(const Params& p) : p_(p), terms_(p) {}
  TX_DEVICE void begin(int64_t group) {
    terms_.begin(group);
    const GroupWork* work = work_of(p_, group);
    TX_UNROLL
    for (int kind = 0; kind < kKinds; ++kind) {
      top_[kind] = top_of(work, kind);
      TX_UNROLL
      for (int k = 0; k < kSlices; ++k) sum_[kind][k] = 0;
    }
  }
  TX_DEVICE void add(int64_t i, int count) {
    for (int e = 0; e < count; ++e) {
      double term;
      bool clipped;
      const bool inside = terms_.kind(i + e, &term, &clipped) == 0;
      const int top = inside ? top_[0] : top_[1];
      TX_UNROLL
      for (int k = 0; k < kSlices; ++k) {
        const double c = levels::slice_rounder(top - k), part = (term + c) - c;
        const auto units =
            static_cast<int64_t>(part * levels::power_of_two(-kSliceBits * (top - k)));
        sum_[0][k] += inside ? units : 0;
        sum_[1][k] += inside ? 0 : units;
        term -= part;
      }
    }
  }
  TX_DEVICE void flush(const Thread& t, int64_t group) {
    TX_UNROLL
    for (int k = 0; k < kKinds * kSlices; ++k)
      sum_[k / kSlices][k % kSlices] = warp_sum(sum_[k / kSlices][k % kSlices], t);
    if (t.lane() == 0) flush_one(t, group);
  }
  TX_DEVICE void flush_one(const Thread& t, int64_t group) {
    GroupWork* work = work_of(p_, group);
    TX_UNROLL
    for (int kind = 0; kind < kKinds; ++kind) {
      TX_UNROLL
      for (int k = 0; k < kSlices; ++k) {
        t.add(&work->high[kind][k], sum_[kind][k] >> 32);
        t.add(&work->low[kind][k], sum_[kind][k] & int64_t{0xFFFFFFFF});
      }
    }
  }

 private:
  const Params& p_;
  Terms terms_;
  int top_[kKinds] = {};
  int64_t sum_[kKinds][kSlices] = {};
};

/// Marks the groups of tables that do not ascend.
struct CheckTables {
  using Params = ErrorSumsParams;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t count = p.level_count, tables = p.table_stride == 0 ? 1 : p.channels.channels;
    for (int64_t k = t.index(); k < tables * count; k += t.count()) {
      const double level = p.levels[k], top = p.levels[(k / count + 1) * count - 1];
      const bool rises =
          k % count == 0 || p.levels[k - 1] < level || (p.levels[k - 1] == level && level == top);
      if (!rises || !is_finite(level))
        t.most(&work_of(p, k / count)->bad, int64_t{p.table_stride == 0 ? 2 : 1});
    }
  }
};

struct ErrorTotals {
  using Params = ErrorSumsParams;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    for (int64_t g = t.index(); g < p.channels.channels; g += t.count()) {
      const GroupWork* work = work_of(p, g);
      const Scaling scaling(p, g);
      const int power = 2 * scaling.power + scaling.weight_power;
      const bool bad = work->bad != 0 || work_of(p, 0)->bad == 2;
      p.variance[g] = bad ? from_bits(0x7FF8000000000000) : total(work, 0, power);
      p.bias2[g] = bad ? from_bits(0x7FF8000000000000) : total(work, 1, power);
      p.clipped[g] = bad ? -1 : work->clipped;
    }
  }

 private:
  TX_DEVICE static double total(const GroupWork* work, int kind, int power) {
    const int top = top_of(work, kind);
    DD all;
    TX_UNROLL
    for (int k = 0; k < kSlices; ++k) {
      // Both parts are integers below 2^53: their double and what it misses.
      const DD slices = levels::two_sum(static_cast<double>(work->high[kind][k]) * 0x1p32,
                                        static_cast<double>(work->low[kind][k]));
      const double unit = levels::power_of_two(kSliceBits * (top - k));
      all = all + DD{slices.h * unit, slices.l * unit};
    }
    return ldexp(all.h, power);
  }
};

}  // namespace

cudaError_t launch_error_sums(const ErrorSumsParams& p, cudaStream_t stream) noexcept {
  const int64_t groups = p.channels.channels;
  if (groups == 0) return cudaSuccess;
  const int64_t entries = p.level_count * (p.table_stride == 0 ? 1 : groups);
  cudaError_t status =
      zero(p.work, static_cast<size_t>(groups) * kErrorWords * sizeof(int64_t), stream);
  if (status == cudaSuccess)
    status = launch<CheckTables>(p, {blocks_for(entries, CheckTables::kThreads)}, stream);
  if (status == cudaSuccess) status = visit<MagnitudeVisitor>(p, stream);
  if (status == cudaSuccess) status = visit<TopVisitor>(p, stream);
  if (status == cudaSuccess) status = visit<SliceVisitor>(p, stream);
  if (status != cudaSuccess) return status;
  return launch<ErrorTotals>(p, {blocks_for(groups, ErrorTotals::kThreads)}, stream);
}

}  // namespace torchext::cuda
