// Change of a loss's slope l'(phi + s) - l'(phi), without cancellation however small s is.
//
// Scalar and the same compiled code for every instruction set, so that what is rounded from it is
// the same everywhere. What depends on phi alone is cached once an epoch.
#pragma once

#include <cstdint>
#include <cstring>

#include "../philox.h"
#include "exact_pass.h"

namespace torchext::cpu {

/// exp(x) and exp(x) - 1, each to 1 ulp, for x <= 1; 0 and -1 below -104.
struct Exponential {
  float whole, minus1;
};
TX_HD Exponential exponential(float x) {
  if (x < -104.0f) return {0.0f, -1.0f};
  if (x > 64.0f) x = 64.0f;
  const double magic = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  const double v = static_cast<double>(x), k = (v * 1.4426950408889634 + magic) - magic;
  const double r = v - k * 0.6931471805599453, r2 = r * r;
  const double a = 1.0 / 2 + r * (1.0 / 6), b = 1.0 / 24 + r * (1.0 / 120);
  const double c = 1.0 / 720 + r * (1.0 / 5040), d = 1.0 / 40320 + r * (1.0 / 362880);
  const double rest = r + r2 * ((a + r2 * b) + (r2 * r2) * (c + r2 * d));
  const int64_t bits = (static_cast<int64_t>(k) + 1023) << 52;
  double scale;
  std::memcpy(&scale, &bits, sizeof scale);
  const double change = scale * rest;
  return {static_cast<float>(change + scale), static_cast<float>(change + (scale - 1.0))};
}

/// Floats that are cached for a row.
TX_HD int64_t slope_cache_size(RowLoss loss, int outputs) {
  return loss == RowLoss::squared ? 0 : loss == RowLoss::logistic ? 2 : outputs;
}

/// What the changes at one row need: sigmoid(phi) and sigmoid(-phi), or the class probabilities.
TX_HD void slope_cache(RowLoss loss, int outputs, const float* phi, int64_t step, float* cache) {
  if (loss == RowLoss::logistic) {
    const float small = exponential(phi[0] < 0.0f ? phi[0] : -phi[0]).whole;
    const float large = 1.0f / (1.0f + small);  // sigmoid(|phi|)
    cache[phi[0] < 0.0f ? 1 : 0] = large;
    cache[phi[0] < 0.0f ? 0 : 1] = small * large;
  } else if (loss == RowLoss::softmax) {
    float top = phi[0], total = 0.0f;
    for (int o = 1; o < outputs; ++o) top = phi[o * step] > top ? phi[o * step] : top;
    for (int o = 0; o < outputs; ++o) total += cache[o] = exponential(phi[o * step] - top).whole;
    for (int o = 0; o < outputs; ++o) cache[o] = cache[o] / total;
  }
}

TX_HD float logistic_change(const float* cache, float s) {
  const float p = cache[0], n = cache[1];
  const Exponential e = exponential(s > 0.0f ? -s : s);
  const float below = s > 0.0f ? p + n * e.whole : n + p * e.whole;
  if (below == 0.0f) return s > 0.0f ? n : -p;
  const float change = p * n * e.minus1 / below;
  return s > 0.0f ? -change : change;
}

// The change of one class's probability p, in two parts around the sum of p part over the classes:
// relative to no move where all are small, relative to the largest where one is not.
TX_HD float softmax_part(bool small, float s, float top) {
  return small ? exponential(s).minus1 : exponential(s - top).whole;
}
TX_HD float softmax_whole(bool small, float p, float part, float total) {
  if (small) return p * (part - total) / (1.0f + total);
  return (total > 0.0f ? p * part / total : 0.0f) - p;
}

TX_HD void softmax_change(const float* p, int outputs, const float* s, float* change) {
  float top = s[0], largest = 0.0f, total = 0.0f;
  for (int o = 0; o < outputs; ++o) {
    const float size = s[o] < 0.0f ? -s[o] : s[o];
    top = s[o] > top ? s[o] : top;
    largest = size > largest ? size : largest;
  }
  const bool small = largest <= 1.0f;
  for (int o = 0; o < outputs; ++o) change[o] = softmax_part(small, s[o], top);
  for (int o = 0; o < outputs; ++o) total += p[o] * change[o];
  for (int o = 0; o < outputs; ++o) change[o] = softmax_whole(small, p[o], change[o], total);
}

/// change[o] of every output for scores that moved by s[o]; the outputs of squares do not interact.
TX_HD void slope_change(RowLoss loss, int outputs, const float* cache, const float* s,
                        float* change) {
  if (loss == RowLoss::logistic) {
    change[0] = logistic_change(cache, s[0]);
  } else if (loss == RowLoss::softmax) {
    softmax_change(cache, outputs, s, change);
  } else {
    for (int o = 0; o < outputs; ++o) change[o] = s[o];
  }
}

}  // namespace torchext::cpu
