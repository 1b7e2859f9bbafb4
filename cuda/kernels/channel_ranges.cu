#include "channel_ranges.h"
#include "float_io.h"
#include "grouped.h"
#include "kernels/ranges.h"
#include "warp_reduce.h"

namespace torchext::cuda {
namespace {

// In the workspace 0 means no element, so that zeroed memory is the start; maxima of integers of
// the same order as the floats do not depend on who comes first.
constexpr int64_t kAbove = int64_t{1} << 32;

TX_DEVICE int32_t ordered(float v) {
  const auto bits = static_cast<int32_t>(float_bits(v));
  return bits < 0 ? bits ^ 0x7FFFFFFF : bits;
}
TX_DEVICE float from_ordered(int32_t key) {
  return float_from_bits(static_cast<uint32_t>(key < 0 ? key ^ 0x7FFFFFFF : key));
}

class RangeVisitor {
 public:
  using Params = ChannelRangesParams;

  TX_DEVICE explicit RangeVisitor(const Params& p) : p_(p), aligned_(is_aligned(p.x)) {}
  TX_DEVICE void begin(int64_t) { range_ = Range{}; }

  TX_DEVICE void add(int64_t i, int count) {
    float x[1][4];
    load_floats<1>(element(p_.x, p_.x_type, i), p_.x_type, 0, count, aligned_ && i % 4 == 0, x);
    TX_UNROLL
    for (int e = 0; e < 4; ++e) {
      if (e >= count) continue;
      const float v = x[0][e];
      const uint32_t magnitude = float_bits(v) & 0x7FFFFFFFu;
      range_.magnitude = magnitude > range_.magnitude ? magnitude : range_.magnitude;
      range_.lo = v < range_.lo ? v : range_.lo;
      range_.hi = v > range_.hi ? v : range_.hi;
    }
  }

  TX_DEVICE void flush(const Thread& t, int64_t channel) {
    auto magnitude = static_cast<int32_t>(range_.magnitude);
    int32_t below = -1 - ordered(range_.lo), hi = ordered(range_.hi);
    magnitude = warp_largest(magnitude, t);
    below = warp_largest(below, t);
    hi = warp_largest(hi, t);
    if (t.lane() == 0) commit(t, channel, magnitude, below, hi);
  }
  TX_DEVICE void flush_one(const Thread& t, int64_t channel) {
    commit(t, channel, static_cast<int32_t>(range_.magnitude), -1 - ordered(range_.lo),
           ordered(range_.hi));
  }

 private:
  TX_DEVICE void commit(const Thread& t, int64_t channel, int32_t magnitude, int32_t below,
                        int32_t hi) {
    int64_t* work = p_.work + kRangeWords * channel;
    t.most(work, static_cast<int64_t>(magnitude));
    t.most(work + 1, kAbove + below);
    t.most(work + 2, kAbove + hi);
  }

  const Params& p_;
  bool aligned_;
  Range range_;
};

struct ScaleOfRange {
  using Params = ChannelRangesParams;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    for (int64_t c = t.index(); c < p.channels.channels; c += t.count()) {
      const int64_t* work = p.work + kRangeWords * c;
      const auto magnitude = static_cast<uint32_t>(work[0]);
      const bool finite = magnitude < kInfinityBits, empty = work[1] == 0;
      const float nan = __builtin_nanf("");
      if (!p.affine) {
        p.scale[c] = finite ? symmetric_spacing(magnitude, p.bits) : nan;
        continue;
      }
      AffineGrid grid{nan, nan};
      if (finite) {
        grid = affine_grid(empty ? 0.0f : from_ordered(static_cast<int32_t>(kAbove - 1 - work[1])),
                           empty ? 0.0f : from_ordered(static_cast<int32_t>(work[2] - kAbove)),
                           p.bits);
      }
      if (!(grid.step <= FLT_MAX)) grid = {nan, nan};
      p.scale[2 * c] = grid.lo;
      p.scale[2 * c + 1] = grid.step;
    }
  }
};

}  // namespace

cudaError_t launch_channel_scales(const ChannelRangesParams& p, cudaStream_t stream) noexcept {
  const int64_t channels = p.channels.channels;
  if (channels == 0) return cudaSuccess;
  cudaError_t status =
      zero(p.work, static_cast<size_t>(channels) * kRangeWords * sizeof(int64_t), stream);
  if (status == cudaSuccess) status = visit<RangeVisitor>(p, stream);
  if (status != cudaSuccess) return status;
  return launch<ScaleOfRange>(p, {blocks_for(channels, ScaleOfRange::kThreads)}, stream);
}

}  // namespace torchext::cuda
