// An epoch of SVRG on CUDA: the bits of the CPU, whose products have 64 lanes (column mod 64).
//
// One block makes all steps; mini-batches are in svrg_batch.cu. Two warps hold one output: a thread
// moves the columns of one lane and sums their product with the next row, in the CPU's order; the
// lanes wait in shared memory for the barrier that ends the step. See halp_steps.cuh for the rest.
#include <cmath>

#include "inner_batch.h"
#include "inner_steps.cuh"
#include "svrg_scale.h"

namespace torchext::cuda {
namespace {

constexpr int kLanes = 64;

/// Parts of the memory of an epoch, in bytes.
struct SvrgLayout {
  int64_t z, drift, ring, cache, lanes, weights, rows, moved, changes, dots, ends, bytes;
};

struct SvrgLaunch {
  cpu::SvrgEpoch e;
  const uint64_t* key;
  unsigned char* scratch;  // null: shared memory
  SvrgLayout at;
  int together;
  SvrgScale scale;
};

template <int kBlock, bool kShared>
struct Svrg {
  using Params = SvrgLaunch;
  static constexpr int kThreads = kBlock, kGroups = kBlock / kLanes;
  static constexpr int kMinBlocks = 1;  // there is no other

  TX_DEVICE static void run(const Params& p, const Thread& t) { Svrg(p, t).epoch(); }

 private:
  TX_DEVICE Svrg(const Params& p, const Thread& t)
      : p_(p),
        t_(t),
        loop_(p.e.loop),
        base_(kShared ? t.shared<unsigned char>() : p.scratch),
        ring_{static_cast<const float*>(loop_.x), part(p.at.ring), loop_.pitch},
        lane_(t.thread() % kLanes),
        group_(t.thread() / kLanes) {}

  TX_DEVICE void epoch() {
    const Key key{p_.key[0], p_.key[1]};
    const auto* const rows = reinterpret_cast<const uint32_t*>(part(p_.at.rows));
    start();
    for (int64_t first = 0; first < loop_.steps; first += p_.together) {
      const int64_t rest = loop_.steps - first;
      const int count = static_cast<int>(rest < p_.together ? rest : p_.together);
      prepare_rows(t_, loop_, key, first, count, reinterpret_cast<uint32_t*>(part(p_.at.rows)),
                   part(p_.at.cache), part(p_.at.weights));
      if (first == 0) {
        for (int64_t s = 0; s < kRing - 1; ++s) ring_.start(t_, s, rows[s]);
        ring_.wait();
      }
      t_.sync();
      for (int i = 0; i < count; ++i) step(first + i, i, rows + i);
    }
    finish();
  }

  TX_DEVICE float* part(int64_t at) const { return reinterpret_cast<float*>(base_ + at); }

  TX_DEVICE void start() {
    for (int o = group_; o < loop_.outputs; o += kGroups) {
      for (int64_t j = lane_; j < loop_.pitch; j += kLanes) {
        part(p_.at.z)[o * loop_.pitch + j] = 0.0f;
        part(p_.at.drift)[o * loop_.pitch + j] = j < p_.e.cols ? svrg_drift(p_.e, o, j) : 0.0f;
      }
      part(p_.at.lanes)[o * kLanes + lane_] = 0.0f;
      part(p_.at.lanes)[(loop_.outputs + o) * kLanes + lane_] = 0.0f;
    }
    for (int o = t_.thread(); o < loop_.outputs; o += kThreads) part(p_.at.ends)[o] = 0.0f;
  }

  TX_DEVICE void step(int64_t s, int i, const uint32_t* rows) {
    ring_.start(t_, s + kRing - 1, rows[kRing - 1]);
    float change = changes(s, i);
    const float* const x = ring_.at(s, rows[0]);
    const float* const next = ring_.at(s + 1, rows[1]);
    for (int o = group_; o < loop_.outputs; o += kGroups) {
      if (loop_.outputs > 1) change = part(p_.at.changes)[o];
      float* const z = part(p_.at.z) + o * loop_.pitch;
      const float* const drift = part(p_.at.drift) + o * loop_.pitch;
      const float minus = -(p_.scale.factor * change);
      float sum = 0.0f;
      for (int64_t j = lane_; j < loop_.pitch; j += kLanes) {
        const float moved = std::fmaf(minus, x[j], std::fmaf(p_.scale.keep, z[j], drift[j]));
        z[j] = moved;
        sum = std::fmaf(next[j], moved, sum);
      }
      part(p_.at.lanes)[((s + 1) % 2 * loop_.outputs + o) * kLanes + lane_] = sum;
    }
    ring_.wait();
    t_.sync();
  }

  /// Product of an output's displacement with the row of step s, known to all lanes of a warp.
  TX_DEVICE float dot(int64_t s, int o) const {
    const float* const lanes = part(p_.at.lanes) + (s % 2 * loop_.outputs + o) * kLanes;
    return warp_sum(lanes[t_.lane()] + lanes[t_.lane() + 32], t_);
  }
  /// The intercept's displacement after a step.
  TX_DEVICE float end_after(int o, float end, float change) const {
    if (!loop_.intercept) return end;
    return end + (svrg_drift(p_.e, o, p_.e.cols) - p_.scale.alpha * change * p_.e.unit);
  }

  /// Changes of the slopes at step s, the i-th prepared one: returned with one output, which every
  /// warp computes for itself; else left in memory by the first.
  TX_DEVICE float changes(int64_t s, int i) {
    const int m = loop_.outputs;
    const auto size = static_cast<int>(cpu::slope_cache_size(loop_.loss, m));
    const float* const cache = part(p_.at.cache) + i * size;
    const float weight = part(p_.at.weights)[i];
    if (m == 1) {
      const float score = svrg_score(p_.e, p_.scale, dot(s, 0), end_);
      const float change = single_change(loop_.loss, cache, score) * weight;
      end_ = end_after(0, end_, change);
      return change;
    }
    float* const dots = part(p_.at.dots);
    for (int o = t_.warp(); o < m; o += kThreads / 32) {
      const float value = dot(s, o);
      if (t_.lane() == 0) dots[o] = value;
    }
    t_.sync();
    if (t_.warp() == 0) {
      float* const ends = part(p_.at.ends);
      float* const score = part(p_.at.moved);
      float* const change = part(p_.at.changes);
      for (int o = t_.lane(); o < m; o += 32)
        score[o] = svrg_score(p_.e, p_.scale, dots[o], ends[o]);
      warp_changes(t_, loop_, cache, weight, score, change);
      for (int o = t_.lane(); o < m; o += 32) ends[o] = end_after(o, ends[o], change[o]);
    }
    t_.sync();
    return 0.0f;
  }

  TX_DEVICE void finish() {
    ring_.drain();
    for (int o = group_; o < loop_.outputs; o += kGroups) {
      for (int64_t j = lane_; j < loop_.pitch; j += kLanes)
        p_.e.z[o * loop_.pitch + j] = part(p_.at.z)[o * loop_.pitch + j];
    }
    if (!loop_.intercept) return;
    t_.sync();
    for (int o = t_.thread(); o < loop_.outputs; o += kThreads)
      p_.e.z_intercept[o] = loop_.outputs == 1 ? end_ : part(p_.at.ends)[o];
  }

  const Params& p_;
  const Thread& t_;
  const cpu::InnerLoop& loop_;
  unsigned char* const base_;
  const RowRing<float, kShared> ring_;
  const int lane_, group_;
  float end_ = 0.0f;  // the intercept's displacement, with one output
};

SvrgLayout layout_of(const cpu::SvrgEpoch& e, bool ring) noexcept {
  const int64_t m = e.loop.outputs, pitch = e.loop.pitch, steps = steps_together(e.loop.outputs);
  BlockParts parts;
  SvrgLayout at{};
  at.z = parts.take(4 * m * pitch);
  at.drift = parts.take(4 * m * pitch);
  at.ring = parts.take(ring ? 4 * kRing * pitch : 0);
  at.cache = parts.take(4 * steps * cpu::slope_cache_size(e.loop.loss, e.loop.outputs));
  at.lanes = parts.take(4 * 2 * m * kLanes);
  at.weights = parts.take(4 * steps);
  at.rows = parts.take(4 * (steps + kRing));
  at.moved = parts.take(4 * m);
  at.changes = parts.take(4 * m);
  at.dots = parts.take(4 * m);
  at.ends = parts.take(4 * m);
  at.bytes = parts.end;
  return at;
}

}  // namespace

int64_t svrg_scratch(const cpu::SvrgEpoch& e) noexcept {
  if (e.loop.batch > 1) return svrg_batch_scratch(e);
  return layout_of(e, true).bytes <= kMostInnerShared ? 0 : layout_of(e, false).bytes;
}

cudaError_t launch_svrg_epoch(const SvrgParams& params, cudaStream_t stream) noexcept {
  if (params.epoch.loop.batch > 1) return launch_svrg_batch(params, stream);
  SvrgLaunch p{};
  const cudaError_t cached = fill_cache(params, &p, stream);
  if (cached != cudaSuccess) return cached;
  const bool shared = svrg_scratch(p.e) == 0;
  p.scratch = shared ? nullptr : static_cast<unsigned char*>(params.scratch);
  p.at = layout_of(p.e, shared);
  const cpu::InnerLoop& loop = p.e.loop;
  p.together = steps_together(loop.outputs);
  p.scale = svrg_scale(p.e);
  const Launch at{1, 1, shared ? static_cast<size_t>(p.at.bytes) : 0};
  if (!shared) return launch<Svrg<256, false>>(p, at, stream);
  if (loop.outputs == 1) return launch<Svrg<64, true>>(p, at, stream);
  return loop.outputs <= 4 ? launch<Svrg<256, true>>(p, at, stream)
                           : launch<Svrg<1024, true>>(p, at, stream);
}

}  // namespace torchext::cuda
