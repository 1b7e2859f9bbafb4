// Units of an epoch of HALP on CUDA, and what is rounded in them.
#pragma once

#include "inner_changes.cuh"
#include "kernels/linear/halp_rules.h"

namespace torchext::cuda {

struct HalpScale {
  double grid;   // spacing of h
  float factor;  // of gamma
  double decay;  // of z a step, in units of the last place of e
};

inline HalpScale halp_scale(const cpu::HalpEpoch& e) noexcept {
  const auto units = static_cast<double>(int64_t{1} << cpu::halp_ranges(e.format).shift);
  const double grid = e.dz / units, rows = static_cast<double>(e.loop.batch) * grid;
  return {grid, static_cast<float>(e.loop.alpha * e.dx / rows), e.loop.alpha * e.loop.l2 * units};
}

TX_HD int64_t stride_of(const cpu::InnerLoop& loop) {  // of h and its targets
  return loop.pitch + (loop.intercept ? 64 : 0);
}

/// alpha_g / grid, padded with zeros; the intercept's comes after the columns.
TX_DEVICE double halp_target(const cpu::HalpEpoch& e, double grid, int64_t o, int64_t j) {
  const int64_t from = j == e.loop.pitch ? e.cols : j;
  const bool there = j < e.cols || j == e.loop.pitch;
  return there ? e.alpha_g[o * (e.cols + 1) + from] / grid : 0.0;
}

TX_DEVICE float halp_uniform(const cpu::HalpEpoch& e, Key key, uint64_t element,
                             cpu::LoopDraw draw) {
  return e.nearest ? 0.5f : unit(draw_word(key, element, e.loop.stream, draw));
}

/// c of a step.
TX_DEVICE int32_t decay_of(const cpu::HalpEpoch& e, double each, Key key, int64_t step) {
  if (!(each > 0)) return 0;
  const float u = halp_uniform(e, key, static_cast<uint64_t>(step), cpu::kDecay);
  return cpu::halp_decay(each, static_cast<double>(u));
}

}  // namespace torchext::cuda
