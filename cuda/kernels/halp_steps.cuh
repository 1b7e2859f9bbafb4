// An epoch of HALP on CUDA: the integers of the CPU.
//
// One block makes all steps. A lane of a warp holds eight adjacent columns of one output: it moves
// them and forms their product with the next row, a warp adds its lanes up, and the warps' sums
// wait in shared memory for the barrier that ends the step. With one output every warp then
// computes the next coefficient itself, so that a step has one barrier; else the first warp does it
// for all.
#pragma once

#include <type_traits>

#include "halp_scale.h"
#include "inner_steps.cuh"
#include "vector_io.h"

namespace torchext::cuda {

constexpr int kUnit = 8;  // columns of a lane

/// Parts of the memory of an epoch, in bytes.
struct HalpLayout {
  int64_t z, drift, ring, noise, cache, sums, uniforms, weights, decays, rows, moved, changes,
      gammas, ends, bytes;
};

struct HalpLaunch {
  cpu::HalpEpoch e;
  const uint64_t* key;
  void* targets;           // [outputs, stride]: alpha_g on the grid of h, float32 or float64
  unsigned char* scratch;  // null: shared memory
  HalpLayout at;
  int together;  // steps
  int groups;    // of 32 lanes that an output takes
  HalpScale scale;
};

/// kUnit adjacent values.
template <class T>
TX_DEVICE void load_unit(const T* from, T* to) {
  if constexpr (sizeof(T) * kUnit == 8) {
    const uint64_t v = *reinterpret_cast<const uint64_t*>(from);
    std::memcpy(to, &v, sizeof v);
  } else {
    load<kUnit>(from, to);
  }
}
template <class T>
TX_DEVICE void store_unit(const T* from, T* to) {
  if constexpr (sizeof(T) * kUnit == 8) {
    uint64_t v;
    std::memcpy(&v, from, sizeof v);
    *reinterpret_cast<uint64_t*>(to) = v;
  } else {
    store<kUnit>(from, to);
  }
}

/// X, Z, H: types of rows, displacement and drift; R: of a lane of noise.
template <class X, class Z, class H, class R, int kBlock, bool kShared>
struct Halp {
  using Params = HalpLaunch;
  using Dot = std::conditional_t<sizeof(X) == 2, int64_t, int32_t>;  // of the columns of a warp
  using Target = std::conditional_t<sizeof(Z) == 1, float, double>;
  static constexpr int kThreads = kBlock, kWarps = kBlock / 32, kShift = 8 * sizeof(R);
  static constexpr bool kNarrow = sizeof(Z) == 1;
  static constexpr int kMinBlocks = 1;  // there is no other
  static constexpr int kNoiseWords = 2 * kShift;

  TX_DEVICE static void run(const Params& p, const Thread& t) { Halp(p, t).epoch(); }

 private:
  TX_DEVICE Halp(const Params& p, const Thread& t)
      : p_(p),
        t_(t),
        loop_(p.e.loop),
        key_{p.key[0], p.key[1]},
        base_(kShared ? t.shared<unsigned char>() : p.scratch),
        ring_{static_cast<const X*>(loop_.x), part<X>(p.at.ring), loop_.pitch},
        items_(loop_.outputs * p.groups) {}

  TX_DEVICE void epoch() {
    start();
    int64_t due = 0;  // steps until the drift is rounded afresh
    for (int64_t first = 0; first < loop_.steps; first += p_.together) {
      const int64_t rest = loop_.steps - first;
      const int count = static_cast<int>(rest < p_.together ? rest : p_.together);
      prepare(first, count);
      if (first == 0) {
        for (int64_t s = 0; s < kRing - 1; ++s) ring_.start(t_, s, part<uint32_t>(p_.at.rows)[s]);
        ring_.wait();
      }
      t_.sync();
      for (int i = 0; i < count; ++i) {
        if (due == 0) {
          round_drift(p_.e.refresh > 0 ? (first + i) / p_.e.refresh : 0);
          due = p_.e.refresh > 0 ? p_.e.refresh : loop_.steps;
        }
        --due;
        step(first + i, i);
      }
    }
    finish();
  }

  template <class T>
  TX_DEVICE T* part(int64_t at) const {
    return reinterpret_cast<T*>(base_ + at);
  }
  TX_DEVICE int64_t stride() const { return stride_of(loop_); }  // a member is a register too many

  /// Calls body(output, column) for the units of this lane; always the same, so nobody waits.
  template <class Body>
  TX_DEVICE void own_units(const Body& body) const {
    for (int item = t_.warp(); item < items_; item += kWarps) {
      const int o = item / p_.groups;
      const int64_t j = (static_cast<int64_t>(item % p_.groups) * 32 + t_.lane()) * kUnit;
      if (j < loop_.pitch) body(o, j);
    }
  }

  /// The displacement is 0, and so are its products with the first row.
  TX_DEVICE void start() {
    own_units([&](int o, int64_t j) {
      const Z zero[kUnit] = {};
      store_unit(zero, part<Z>(p_.at.z) + o * loop_.pitch + j);
    });
    for (int i = t_.thread(); i < 2 * items_; i += kThreads) part<int64_t>(p_.at.sums)[i] = 0;
    for (int o = t_.thread(); o < loop_.outputs; o += kThreads) part<int32_t>(p_.at.ends)[o] = 0;
  }

  /// Random numbers and rows of some steps.
  TX_DEVICE void prepare(int64_t first, int count) {
    const int m = loop_.outputs;
    auto* const noise = part<uint32_t>(p_.at.noise);
    for (int i = t_.thread(); i < count * m * kNoiseWords / 4; i += kThreads) {
      const uint32_t half = kShift == 8 ? 0x80808080u : 0x80008000u;
      Words four{{half, half, half, half}};
      if (!p_.e.nearest) {
        const auto block = static_cast<uint64_t>(first) * m * (kNoiseWords / 4) + i;
        four = draw4(key_, block, loop_.stream, cpu::kUpdateNoise);
      }
      store<4>(four.w, noise + 4 * i);
    }
    auto* const uniforms = part<float>(p_.at.uniforms);
    for (int i = t_.thread(); i < count * m; i += kThreads)
      uniforms[i] =
          halp_uniform(p_.e, key_, static_cast<uint64_t>(first * m + i), cpu::kCoefficient);
    auto* const decays = part<int32_t>(p_.at.decays);
    for (int i = t_.thread(); i < count; i += kThreads)
      decays[i] = decay_of(p_.e, p_.scale.decay, key_, first + i);
    prepare_rows(t_, loop_, key_, first, count, part<uint32_t>(p_.at.rows),
                 part<float>(p_.at.cache), part<float>(p_.at.weights));
  }

  TX_DEVICE void round_drift(int64_t refresh) {
    const auto* const targets = static_cast<const Target*>(p_.targets);
    const int64_t from = refresh * loop_.outputs * stride();
    own_units([&](int o, int64_t j) {
      const int64_t at = o * stride() + j;
      Target target[kUnit];
      load<kUnit>(targets + at, target);
      H h[kUnit];
      TX_UNROLL
      for (int four = 0; four < kUnit; four += 4) {
        const Words words = draw4(key_, static_cast<uint64_t>(from + at + four) / 4, loop_.stream,
                                  cpu::kDriftNoise);
        TX_UNROLL
        for (int k = 0; k < 4; ++k)
          h[four + k] = static_cast<H>(drift(target[four + k], words.w[k]));
      }
      store_unit(h, part<H>(p_.at.drift) + at);
    });
    own_intercepts([&](int o) {
      const int64_t at = o * stride() + loop_.pitch;
      const uint32_t word =
          draw_word(key_, static_cast<uint64_t>(from + at), loop_.stream, cpu::kDriftNoise);
      part<H>(p_.at.drift)[at] = static_cast<H>(drift(targets[at], word));
    });
  }
  TX_DEVICE int32_t drift(Target target, uint32_t word) {
    const Target u = p_.e.nearest ? Target{0.5} : static_cast<Target>(unit(word));
    return cpu::halp_drift(target, u, static_cast<Target>(cpu::halp_ranges(p_.e.format).drift),
                           clips_ + 2);
  }

  /// The intercept belongs to a lane of an output's last warp, without columns if there is one.
  TX_DEVICE bool owns_intercept(int item) const {
    return loop_.intercept && item % p_.groups == p_.groups - 1 &&
           t_.lane() == static_cast<int>(loop_.pitch / kUnit % 32);
  }
  template <class Body>
  TX_DEVICE void own_intercepts(const Body& body) const {
    for (int item = t_.warp(); item < items_; item += kWarps) {
      if (owns_intercept(item)) body(item / p_.groups);
    }
  }

  TX_DEVICE void step(int64_t s, int i) {
    const uint32_t* const rows = part<uint32_t>(p_.at.rows) + i;
    ring_.start(t_, s + kRing - 1, rows[kRing - 1]);
    int32_t gamma = coefficients(s, i);
    const X* const x = ring_.at(s, rows[0]);
    const X* const next = ring_.at(s + 1, rows[1]);
    const int32_t decay = part<int32_t>(p_.at.decays)[i];
    int64_t* const sums = part<int64_t>(p_.at.sums) + (s + 1) % 2 * items_;
    for (int item = t_.warp(); item < items_; item += kWarps) {
      const int o = item / p_.groups;
      const int64_t j = (static_cast<int64_t>(item % p_.groups) * 32 + t_.lane()) * kUnit;
      if (loop_.outputs > 1) gamma = part<int32_t>(p_.at.gammas)[o];
      const auto* const noise = reinterpret_cast<const R*>(part<uint32_t>(p_.at.noise) +
                                                           (i * loop_.outputs + o) * kNoiseWords);
      Dot dot = 0;
      if (j < loop_.pitch) {
        dot = move(x + j, next + j, noise + j % 64, part<H>(p_.at.drift) + o * stride() + j,
                   part<Z>(p_.at.z) + o * loop_.pitch + j, gamma, decay);
      }
      if (owns_intercept(item)) dot += move_intercept(o, noise[0], gamma);
      dot = warp_sum(dot, t_);
      if (t_.lane() == 0) sums[item] = dot;
    }
    ring_.wait();
    t_.sync();
  }

  /// Moves a unit; its product with the next row.
  TX_DEVICE Dot move(const X* x_at, const X* next_at, const R* noise_at, const H* drift_at, Z* z_at,
                     int32_t gamma, int32_t decay) {
    X x[kUnit], next[kUnit];
    R noise[kUnit];
    H drift[kUnit];
    Z z[kUnit];
    load_unit(x_at, x);
    load_unit(next_at, next);
    load_unit(noise_at, noise);
    load_unit(drift_at, drift);
    load_unit(static_cast<const Z*>(z_at), z);
    uint32_t clips = 0;
    Dot dot = 0;
    TX_UNROLL
    for (int k = 0; k < kUnit; ++k) {
      z[k] = static_cast<Z>(
          cpu::halp_move<kNarrow, kShift>(noise[k], gamma, x[k], drift[k], decay, z[k], &clips));
      if constexpr (!kNarrow) dot += next[k] * z[k];
    }
    if constexpr (kNarrow) {
      uint32_t a[2], b[2];
      std::memcpy(a, z, sizeof a);
      std::memcpy(b, next, sizeof b);
      dot = dp4a(a[1], b[1], dp4a(a[0], b[0], 0));
    }
    store_unit(z, z_at);
    clips_[0] += clips;
    return dot;
  }

  TX_DEVICE Dot move_intercept(int o, R noise, int32_t gamma) {
    const int32_t code = cpu::halp_ranges(p_.e.format).data;
    const H drift = part<H>(p_.at.drift)[o * stride() + loop_.pitch];
    int32_t* const end = part<int32_t>(p_.at.ends) + o;
    *end = cpu::halp_move<kNarrow, kShift>(noise, gamma, code, drift, 0, *end, clips_);
    return static_cast<Dot>(code * *end);
  }

  /// gamma of step s, the i-th prepared one: returned with one output, else left in memory.
  TX_DEVICE int32_t coefficients(int64_t s, int i) {
    const int m = loop_.outputs;
    const auto size = static_cast<int>(cpu::slope_cache_size(loop_.loss, m));
    const float* const cache = part<float>(p_.at.cache) + i * size;
    const float weight = part<float>(p_.at.weights)[i];
    const int64_t* const sums = part<int64_t>(p_.at.sums) + s % 2 * items_;
    const double scale = p_.e.dx * p_.e.dz;
    if (m == 1) {
      int64_t dot = 0;
      for (int g = t_.lane(); g < items_; g += 32) dot += sums[g];
      dot = warp_sum(dot, t_);
      const auto moved = static_cast<float>(scale * static_cast<double>(dot));
      const float change = single_change(loop_.loss, cache, moved) * weight;
      return rounded(s, i, 0, change, t_.thread() == 0);
    }
    if (t_.warp() == 0) {
      auto* const moved = part<float>(p_.at.moved);
      auto* const change = part<float>(p_.at.changes);
      for (int o = t_.lane(); o < m; o += 32) {
        int64_t dot = 0;
        for (int g = 0; g < p_.groups; ++g) dot += sums[o * p_.groups + g];
        moved[o] = static_cast<float>(scale * static_cast<double>(dot));
      }
      warp_changes(t_, loop_, cache, weight, moved, change);
      for (int o = t_.lane(); o < m; o += 32)
        part<int32_t>(p_.at.gammas)[o] = rounded(s, i, o, change[o], true);
    }
    t_.sync();
    return 0;
  }
  TX_DEVICE int32_t rounded(int64_t s, int i, int o, float change, bool first) {
    const int m = loop_.outputs;
    const float u = part<float>(p_.at.uniforms)[i * m + o];
    uint32_t clips = 0;
    const int32_t gamma = cpu::halp_coefficient(p_.scale.factor * change, u,
                                                cpu::halp_ranges(p_.e.format).gamma, &clips);
    if (first) {
      clips_[1] += clips;
      if (p_.e.gammas != nullptr) p_.e.gammas[s * m + o] = gamma;
    }
    return gamma;
  }

  TX_DEVICE void finish() {
    ring_.drain();
    t_.sync();  // without a step nothing has ordered start() and this
    own_units([&](int o, int64_t j) {
      const int64_t at = o * loop_.pitch + j;
      for (int k = 0; k < kUnit; ++k) static_cast<Z*>(p_.e.z)[at + k] = part<Z>(p_.at.z)[at + k];
    });
    own_intercepts([&](int o) { p_.e.z_intercept[o] = part<int32_t>(p_.at.ends)[o]; });
    for (int k = 0; k < 3; ++k) {
      if (clips_[k] != 0) t_.add(p_.e.clips + k, clips_[k]);
    }
  }

  const Params& p_;
  const Thread& t_;
  const cpu::InnerLoop& loop_;
  const Key key_;
  unsigned char* const base_;
  const RowRing<X, kShared> ring_;
  const int items_;  // warps' work: groups of 32 lanes of all outputs
  int64_t clips_[3] = {};
};

}  // namespace torchext::cuda
