// What both epoch drivers keep per output: the padded master model and everything its update reads.
#pragma once

#include <cmath>

#include "../../linear/scratch.h"
#include "../../linear/sgd_kernels.h"
#include "../../team.h"

namespace torchext::cpu {

/// Largest magnitude of a signed `bits`-wide integer on a symmetric grid.
inline float top_of(int bits) { return static_cast<float>((1 << (bits - 1)) - 1); }

/// Reciprocal of a scale; a subnormal scale counts as zero.
inline float inverse_of(float scale) { return scale >= 0x1p-126f ? 1.0f / scale : 0.0f; }

struct ModelState {
  const Epoch& p;
  const int64_t n, np;  // columns, and columns padded to a multiple of 64
  Scratch<float> x, x0, constant, shrink, lo, step, w, beta_lanes, intercept;
  Scratch<double> average;

  /// `values`: w is v itself (the float32 path), not step*v.
  ModelState(const Epoch& epoch, int threads, bool values)
      : p(epoch), n(p.data.cols), np((n + 63) / 64 * 64) {
    const int64_t m = p.outputs;
    x = padded(p.x, n, m);
    if (p.x0 != nullptr) x0 = padded(p.x0, p.x0_cols, m);
    if (p.constant != nullptr) constant = padded(p.constant, p.constant_cols, m);
    if (p.shrink != nullptr) shrink = padded(p.shrink, n, 1);
    lo = Scratch<float>(np);
    step = Scratch<float>(np);
    for (int64_t j = 0; j < n; ++j) {
      lo[j] = values ? 0.0f : p.grid[2 * j];
      step[j] = values ? 1.0f : p.grid[2 * j + 1];
    }
    w = Scratch<float>(m * np);
    beta_lanes = Scratch<float>(m * np / 4);
    intercept = Scratch<float>(threads * stride());
    for (int t = 0; t < threads; ++t) {
      for (int64_t o = 0; o < m; ++o) intercept[t * stride() + o] = p.intercept[o];
    }
    if (p.average != nullptr) average = Scratch<double>(m * np);
  }

  /// Distance of the threads' intercepts: no two on one cache line.
  int64_t stride() const { return (p.outputs + 15) / 16 * 16; }

  UpdateArgs update_args(int64_t o, double gamma) {
    UpdateArgs a{};
    a.cols = np;
    a.planes = p.planes;
    a.lo = lo.data();
    a.step = step.data();
    a.x0 = p.x0 != nullptr ? x0.data() + o * np : nullptr;
    a.constant = p.constant != nullptr ? constant.data() + o * np : nullptr;
    a.shrink = p.shrink != nullptr ? shrink.data() : nullptr;
    a.gamma = static_cast<float>(gamma);
    a.l1 = p.l1;
    a.l2 = p.l2;
    a.variance_reduced = p.variance_reduced;
    a.x = x.data() + o * np;
    a.w = w.data() + o * np;
    a.beta_lanes = beta_lanes.data() + o * np / 4;
    a.average = p.average != nullptr ? average.data() + o * np : nullptr;
    return a;
  }

  /// The intercept as the prediction sees it: with variance reduction its distance from x0's.
  float offset(int rank, int64_t o) {
    const float b = intercept[rank * stride() + o];
    return p.variance_reduced && p.x0 != nullptr && p.x0_cols > n ? b - p.x0[o * p.x0_cols + n] : b;
  }

  /// Every rank keeps its own copy of the intercept; rank 0's is the one that counts.
  void move_intercept(int rank, int64_t o, float gradient, double gamma) {
    float& b = intercept[rank * stride() + o];
    if (p.fit_intercept) {
      const float h =
          p.constant != nullptr && p.constant_cols > n ? p.constant[o * p.constant_cols + n] : 0.0f;
      b -= static_cast<float>(gamma) * (gradient + h);
    }
    if (rank == 0 && p.average != nullptr) p.average[o * (n + 1) + n] += static_cast<double>(b);
  }

  /// Fetches what beta() is going to read: other threads wrote most of it.
  void prefetch_beta(int64_t o) const {
    for (int64_t i = 0; i < np / 4; i += 16) __builtin_prefetch(beta_lanes.data() + o * np / 4 + i);
  }

  float beta(int64_t o) {
    float lanes[16] = {};
    for (int64_t i = 0; i < np / 4; i += 16) {
      for (int l = 0; l < 16; ++l) lanes[l] += beta_lanes[o * np / 4 + i + l];
    }
    for (int half = 8; half > 0; half /= 2) {
      for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    }
    return lanes[0];
  }

  void finish() {
    for (int64_t o = 0; o < p.outputs; ++o) {
      std::memcpy(p.x + o * n, x.data() + o * np, static_cast<size_t>(n) * sizeof(float));
      p.intercept[o] = intercept[o];
      for (int64_t j = 0; p.average != nullptr && j < n; ++j)
        p.average[o * (n + 1) + j] += average[o * np + j];
    }
  }

 private:
  Scratch<float> padded(const float* from, int64_t from_cols, int64_t count) const {
    Scratch<float> to(count * np);
    for (int64_t o = 0; o < count; ++o) {
      std::memcpy(to.data() + o * np, from + o * from_cols, static_cast<size_t>(n) * sizeof(float));
    }
    return to;
  }
};

/// y, weight and z0 of one batch and output, readable up to a multiple of 16 rows.
class BatchTargets {
 public:
  BatchTargets(const Epoch& p, int64_t rows) : p_(p), y_(rows), weight_(rows), z0_(rows) {}

  void fill(ResidualArgs& a, int64_t row0, int64_t o) {
    a.y = column(p_.y, p_.outputs, row0, a, o, y_);
    a.weight = column(p_.weight, 1, row0, a, 0, weight_);
    a.z0 = column(p_.z0, p_.outputs, row0, a, o, z0_);
  }

 private:
  const float* column(const float* from, int64_t width, int64_t row0, const ResidualArgs& a,
                      int64_t o, Scratch<float>& to) {
    if (from == nullptr) return nullptr;
    if (width == 1 && a.rows == a.padded) return from + row0;
    for (int64_t k = 0; k < a.rows; ++k) to[k] = from[(row0 + k) * width + o];
    for (int64_t k = a.rows; k < a.padded; ++k) to[k] = 0.0f;
    return to.data();
  }

  const Epoch& p_;
  Scratch<float> y_, weight_, z0_;
};

/// Moves the float lanes of at most 256 rows into the doubles total[0, 16) (loss) and total[16, 32)
/// (e^2).
inline void flush_lanes(LossLanes& lanes, double* total) {
  for (int l = 0; l < 16; ++l) {
    total[l] += static_cast<double>(lanes.loss[l]);
    total[16 + l] += static_cast<double>(lanes.square[l]);
    lanes.loss[l] = lanes.square[l] = 0.0f;
  }
}

inline double sum_lanes(const double* lanes) {
  double sum = 0.0;
  for (int l = 0; l < 16; ++l) sum += lanes[l];
  return sum;
}

/// The next batch's y and weights: a few lines, but far away when batches come in random order.
inline __attribute__((always_inline)) void prefetch_targets(const Epoch& p, int64_t row0,
                                                            int64_t rows) {
  if (rows > 4096) return;
  for (int64_t k = 0; p.y != nullptr && k < rows * p.outputs; k += 16)
    __builtin_prefetch(p.y + row0 * p.outputs + k);
  for (int64_t k = 0; p.weight != nullptr && k < rows; k += 16)
    __builtin_prefetch(p.weight + row0 + k);
  for (int64_t k = 0; p.z0 != nullptr && k < rows * p.outputs; k += 16)
    __builtin_prefetch(p.z0 + row0 * p.outputs + k);
}

/// Rounds g itself to gradient_bits (what would cross a link to the master) and lets `a` use it.
inline void round_gradient(ModelState& state, const SgdKernels& kernels, Team& team, UpdateArgs& a,
                           int rank, int64_t o, int64_t begin, int64_t end, Key key, float* g) {
  team.word(rank, o) = kernels.gradient(a, begin, end, g);
  team.barrier(rank);
  const float top = top_of(state.p.gradient_bits), scale = team.peak(o) / top,
              inv = inverse_of(scale);
  team.barrier(rank);  // the update overwrites the maxima
  for (int64_t j = begin; j < end; j += 4) {
    const Words words = draw4(key, static_cast<uint64_t>(j) / 4, static_cast<uint32_t>(o), 0);
    for (int k = 0; k < 4; ++k) {
      const float t = g[j + k] * inv, low = std::floor(t);
      const float q = low + (unit(words.w[k]) < t - low ? 1.0f : 0.0f);
      g[j + k] = (q < -top ? -top : q > top ? top : q) * (inv != 0.0f ? scale : 0.0f);
    }
  }
  a.sums = nullptr;
  a.gradient = g;
}

}  // namespace torchext::cpu
