// Float32 steps of SVRG, written once for every vector width; included by each per-ISA source.
#pragma once

#include "inner_loop.h"
#include "vec_math.h"

namespace torchext::cpu {
namespace {

constexpr int kSums = 64 / TX_LANES;  // a product has 64 lanes on every instruction set

/// The lanes of a product, by halves.
float lane_sum(const VF (&sums)[kSums]) noexcept {
  float lanes[64];
  for (int part = 0; part < kSums; ++part) store(lanes + part * TX_LANES, sums[part]);
  for (int half = 32; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

float svrg_step(const SvrgStep& s) noexcept {
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
  return lane_sum(sums);
}

float svrg_dot(const float* x, const float* z, const float* ahead, int64_t n) noexcept {
  VF sums[kSums] = {};
  for (int64_t j = 0; j < n; j += 64) {
    for (int line = 0; line < 4; ++line) __builtin_prefetch(ahead + j + 16 * line, 0, 2);
    for (int part = 0; part < kSums; ++part) {
      const int64_t i = j + part * TX_LANES;
      sums[part] = fused(load(x + i), load(z + i), sums[part]);
    }
  }
  return lane_sum(sums);
}

void svrg_batch(const SvrgBatchStep& s) noexcept {
  const VF keep = splat(s.keep);
  for (int64_t j = 0; j < s.n; j += 64) {
    VF z[kSums];
    for (int part = 0; part < kSums; ++part) {
      const int64_t i = j + part * TX_LANES;
      z[part] = fused(keep, load(s.z + i), load(s.minus_drift + i));
    }
    for (int64_t first = 0; first < s.rows; first += kBatchPart) {
      const int64_t end = first + kBatchPart < s.rows ? first + kBatchPart : s.rows;
      VF sums[kSums] = {};
      for (int64_t row = first; row < end; ++row) {
        const VF step = splat(-s.step[row]);
        const float* const x = s.x[row] + j;
        for (int part = 0; part < kSums; ++part)
          sums[part] = fused(step, load(x + part * TX_LANES), sums[part]);
      }
      for (int part = 0; part < kSums; ++part) z[part] += sums[part];
    }
    for (int part = 0; part < kSums; ++part) store(s.z + j + part * TX_LANES, z[part]);
  }
}

constexpr SvrgKernels kSvrgKernels = {svrg_step, svrg_dot, svrg_batch};

}  // namespace
}  // namespace torchext::cpu
