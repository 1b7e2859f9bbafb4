// Factors of an epoch of SVRG on CUDA, and its rules for one number.
#pragma once

#include "inner_loop.h"

namespace torchext::cuda {

struct SvrgScale {
  float factor, dx, alpha, keep;
};

inline SvrgScale svrg_scale(const cpu::SvrgEpoch& e) noexcept {
  const auto rows = static_cast<double>(e.loop.batch);
  return {static_cast<float>(e.loop.alpha * e.dx / rows), static_cast<float>(e.dx),
          static_cast<float>(e.loop.alpha / rows),
          static_cast<float>(1.0 - e.loop.alpha * e.loop.l2)};
}

/// How far a score has moved: `dot` by the columns, `end` by the intercept.
TX_DEVICE float svrg_score(const cpu::SvrgEpoch& e, const SvrgScale& scale, float dot, float end) {
  return scale.dx * dot + (e.loop.intercept ? e.unit * end : 0.0f);
}

/// -alpha g of a column; the intercept's is that of column `cols`.
TX_DEVICE float svrg_drift(const cpu::SvrgEpoch& e, int64_t o, int64_t j) {
  return static_cast<float>(-e.alpha_g[o * (e.cols + 1) + j]);
}

}  // namespace torchext::cuda
