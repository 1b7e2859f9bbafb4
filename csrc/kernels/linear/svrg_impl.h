// Float32 steps of SVRG, written once for every vector width; included by each per-ISA source.
#pragma once

#include "inner_loop.h"
#include "vec_math.h"

namespace torchext::cpu {
namespace {

constexpr int kSums = 64 / TX_LANES;  // a product has 64 lanes on every instruction set

float svrg_step_impl(const SvrgStep& s) noexcept {
  const VF step = splat(-s.step), keep = splat(s.keep);
  VF sums[kSums] = {};
  for (int64_t j = 0; j < s.n; j += 64) {
    for (int line = 0; line < 4; ++line) TX_FETCH_ROWS(s.ahead, j / 16 + line);
    for (int part = 0; part < kSums; ++part) {
      const int64_t i = j + part * TX_LANES;
      const VF z = fused(step, load(s.x + i), fused(keep, load(s.z + i), load(s.minus_drift + i)));
      store(s.z + i, z);
      sums[part] = fused(load(s.next + i), z, sums[part]);
    }
  }
  float lanes[64];
  for (int part = 0; part < kSums; ++part) store(lanes + part * TX_LANES, sums[part]);
  for (int half = 32; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

}  // namespace
}  // namespace torchext::cpu
