// An epoch of SVRG in float32: the scalar part of its steps. What is O(columns) is in the kernels.
#include <vector>

#include "../dispatch.h"
#include "inner_steps.h"

namespace torchext::cpu {

SvrgStepFn* svrg_step_kernel() noexcept {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return svrg_step_avx512;
    case Isa::avx2: return svrg_step_avx2;
    default: break;
  }
#endif
  return svrg_step_ref;
}

void svrg_epoch(const SvrgEpoch& e) {
  const InnerLoop& loop = e.loop;
  const int outputs = loop.outputs;
  SvrgStepFn* const step = svrg_step_kernel();
  Rows rows(loop, halp_kernels().words);
  Changes changes(loop);
  const int64_t stride = loop.pitch + 64;
  Scratch<float> minus_drift(outputs * stride);
  for (int o = 0; o < outputs; ++o) {
    const double* g = e.alpha_g + o * (e.cols + 1);
    float* const to = minus_drift.data() + o * stride;
    for (int64_t j = 0; j < e.cols; ++j) to[j] = static_cast<float>(-g[j]);
    to[loop.pitch] = static_cast<float>(-g[e.cols]);
  }
  const auto* x = static_cast<const float*>(loop.x);
  const auto factor = static_cast<float>(loop.alpha * e.dx), dx = static_cast<float>(e.dx);
  const auto alpha = static_cast<float>(loop.alpha);
  SvrgStep s{};
  s.n = loop.pitch;
  s.keep = static_cast<float>(1.0 - loop.alpha * loop.l2);
  std::vector<float> dots(static_cast<size_t>(outputs));  // z starts at 0
  for (int64_t t = 0; t < loop.steps; ++t) {
    rows.next(t);
    for (int o = 0; o < outputs; ++o) {
      const auto at = static_cast<size_t>(o);
      changes.moved[at] = dx * dots[at] + (loop.intercept ? e.unit * e.z_intercept[o] : 0.0f);
    }
    changes.form(rows[t]);
    changes.fetch(rows[t + 4]);
    s.x = x + rows[t] * loop.pitch;
    s.next = x + rows[t + 1] * loop.pitch;
    s.ahead = rows.ahead(t, reinterpret_cast<const uint8_t*>(x), 4 * loop.pitch);
    for (int o = 0; o < outputs; ++o) {
      const auto at = static_cast<size_t>(o);
      s.z = e.z + o * loop.pitch;
      s.minus_drift = minus_drift.data() + o * stride;
      s.step = factor * changes.change[at];
      dots[at] = step(s);
      if (loop.intercept)
        e.z_intercept[o] += s.minus_drift[loop.pitch] - alpha * changes.change[at] * e.unit;
    }
  }
}

}  // namespace torchext::cpu
