// The short kernels of an epoch: before the first step, where a gradient is rounded, and at the
// end.
#include "epoch_parts.h"
#include "epoch_step.cuh"

namespace torchext::cuda {
namespace {

/// The first of four outputs that a block updates.
TX_DEVICE int first_output(const Thread& t) { return 4 * static_cast<int>(t.row()); }

/// w, beta and the scale of the first model copy.
struct Begin {
  using Params = EpochStep;
  static constexpr int kThreads = kUpdateThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    auto* shared = t.shared<float>();
    const int first = first_output(t);
    update_columns(p, t, t.block(), first, 4, false, shared, [](int64_t, int64_t) { return 0.0f; });
    finish_outputs(p, t, first, 4, reinterpret_cast<int*>(shared + kUpdateThreads));
  }
};

/// Follows the gradient in p.gradient, rounded to p.gradient_bits.
struct Follow {
  using Params = EpochStep;
  static constexpr int kThreads = kUpdateThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    auto* shared = t.shared<float>();
    const int first = first_output(t);
    const Key key = step_key(p, Purpose::kGrad);
    const auto gradient = [&](int64_t o, int64_t j) {
      const float g = p.gradient[o * p.np + j];
      if (p.gradient_bits == 0) return g;
      const float top = top_of(p.gradient_bits);
      const Spacing s = spacing_of(p.g_peak[o], p.gradient_bits);
      const float scaled = g * s.inverse;
      const float u = unit(draw1(key, static_cast<uint64_t>(j), static_cast<uint32_t>(o), 0));
      const float q = round_stochastic(scaled, u);
      return (q < -top ? -top : q > top ? top : q) * s.used;
    };
    update_columns(p, t, t.block(), first, 4, rows_of(p).count > 0, shared, gradient);
    finish_outputs(p, t, first, 4, reinterpret_cast<int*>(shared + kUpdateThreads));
  }
};

/// Adds the iterates to the average and writes the sums.
struct Finish {
  using Params = EpochStep;
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t m = p.outputs, n = p.cols;
    for (int64_t i = t.index(); p.average != nullptr && i < m * n; i += t.count())
      p.average[i / n * (n + 1) + i % n] += p.iterates[i / n * p.np + i % n];
    for (int64_t i = t.index(); i < 2 * m; i += t.count()) {
      double sum = 0.0;
      for (int s = 0; s < (p.values ? kSegments : 1); ++s) {
        const double* lanes = p.totals + (s * m + i % m) * 32 + i / m * 16;
        double part = 0.0;
        for (int l = 0; l < 16; ++l) part += lanes[l];
        sum += part;
      }
      p.sums[i] = sum;
    }
    for (int64_t i = t.index(); i < m; i += t.count()) p.sums[2 * m + i] = p.counted[i];
  }
};

Launch columns(const EpochStep& p) {
  return {p.np / 64, (p.outputs + 3) / 4, 4 * (kUpdateThreads + 4)};
}

}  // namespace

cudaError_t launch_begin(const EpochStep& p, cudaStream_t stream) noexcept {
  return launch<Begin>(p, columns(p), stream);
}

cudaError_t launch_follow(const EpochStep& p, cudaStream_t stream) noexcept {
  return launch<Follow>(p, columns(p), stream);
}

cudaError_t launch_finish(const EpochStep& p, cudaStream_t stream) noexcept {
  return launch<Finish>(p, {blocks_for(p.outputs * p.np, Finish::kThreads)}, stream);
}

}  // namespace torchext::cuda
