// Slopes and sums of a line search, written once for every vector width; included per ISA.
#pragma once

#include "loss_rules.h"

namespace torchext::cpu {
namespace {

// Sums are kept a float a lane (row mod 16), of 64 terms each at most, in [outputs][kTermSums][16].
constexpr int kLaneSums = kTermSums * 16;

/// TX_LANES values from p, of which only the first `count` exist.
TX_INL VF load_some(const float* p, int64_t count) {
  if (count >= TX_LANES) return load(p);
  VF v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = p[i];
  return v;
}
TX_INL void store_some(float* p, VF v, int64_t count) {
  if (count >= TX_LANES) return store(p, v);
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}

TX_INL void add_lanes(float* lanes, VF v) { store(lanes, load(lanes) + v); }

/// Rows [k, k + count): one vector.
struct Block {
  const LossTerms& a;
  int64_t k, count;
  float* lanes;  // of the first output, from the lane of row k on

  VF at(const float* p, int o) const { return load_some(p + o * a.rows + k, count); }
  VF score(int o) const { return a.score != nullptr ? at(a.score, o) : VF{}; }
  VF move(int o) const {
    if (a.moved == nullptr) return VF{};
    const VF m = at(a.moved, o);
    return a.score != nullptr ? m + at(a.score, o) * a.length[o] : m;
  }
  VF weight() const {
    if (a.weight != nullptr) return load_some(a.weight + k, count);
    if (count >= TX_LANES) return splat(1.0f);
    VF v = {};
    for (int64_t i = 0; i < TX_LANES; ++i) v[i] = i < count ? 1.0f : 0.0f;
    return v;
  }
  void put(int o, VF slope, VF bent, VF score, VF d) const {
    if (a.slopes != nullptr) store_some(a.slopes + o * a.rows + k, slope, count);
    float* const to = lanes + o * kLaneSums;
    add_lanes(to, slope * score);
    add_lanes(to + 16, bent);
    add_lanes(to + 32, slope);
    add_lanes(to + 48, d * d);
  }
};

TX_INL void one_output(const Block& b, int o) {
  const LossTerms& a = b.a;
  const VF v = b.weight(), z = load_some(a.z + o * a.z_stride + b.k, b.count), d = b.move(o),
           s = b.score(o), y = a.moved != nullptr ? VF{} : b.at(a.y, o);
  const Terms t = output_terms(a.loss, a.moved != nullptr, z, y, d, s);
  b.put(o, v * t.slope, v * t.bent, s, d);
}

/// Probabilities of the outputs at z, or at z + d, a vector for each.
TX_INL void chances(const Block& b, bool there, float* p) {
  const int m = b.a.outputs;
  VF top = splat(-3.0e38f), total = {};
  for (int o = 0; o < m; ++o) {
    VF z = load_some(b.a.z + o * b.a.z_stride + b.k, b.count);
    if (there) z += b.move(o);
    store(p + o * TX_LANES, z);
    top = larger(z, top);
  }
  for (int o = 0; o < m; ++o) {
    const VF each = exp_approx(load(p + o * TX_LANES) - top);
    store(p + o * TX_LANES, each);
    total += each;
  }
  for (int o = 0; o < m; ++o) store(p + o * TX_LANES, load(p + o * TX_LANES) / total);
}

/// `scratch`: p at z, then at z + d.
TX_INL void softmax(const Block& b, float* scratch) {
  const LossTerms& a = b.a;
  const int m = a.outputs;
  float *p = scratch, *q = scratch + m * TX_LANES;
  const VF v = b.weight();
  chances(b, false, p);
  if (a.moved == nullptr) {
    for (int o = 0; o < m; ++o) {
      const VF own = load_some(a.y + b.k, b.count) == static_cast<float>(o) ? splat(1.0f) : VF{};
      b.put(o, v * (load(p + o * TX_LANES) - own), VF{}, VF{}, VF{});
    }
    return;
  }
  chances(b, true, q);
  VF first = {}, spread = {}, peak = b.move(0), least = peak, mean = {};
  for (int o = 0; o < m; ++o) {
    const VF d = b.move(o);
    first += load(q + o * TX_LANES) * b.score(o);
    peak = larger(d, peak);
    least = d < least ? d : least;
  }
  for (int o = 0; o < m; ++o) {
    const VF s = b.score(o) - first;
    spread += load(q + o * TX_LANES) * s * s;
    mean += load(p + o * TX_LANES) * expm1_approx(b.move(o) - peak);
  }
  const VF bent = v * spread;
  for (int o = 0; o < m; ++o) {
    const VF before = load(p + o * TX_LANES);
    const VF slope = softmax_slope(before, load(q + o * TX_LANES), b.move(o), peak, least, mean);
    b.put(o, v * slope, o == 0 ? bent : VF{}, b.score(o), b.move(o));
  }
}

void loss_terms_impl(const LossTerms& a, int64_t begin, int64_t end, float* scratch,
                     double* sums) noexcept {
  const int m = a.outputs;
  float* const lanes = scratch + 2 * TX_LANES * m;
  for (int i = 0; i < m * kLaneSums; ++i) lanes[i] = 0.0f;
  for (int64_t k = begin; k < end; k += TX_LANES) {
    const Block block{a, k, end - k < TX_LANES ? end - k : TX_LANES, lanes + k % 16};
    if (a.loss == RowLoss::softmax) {
      softmax(block, scratch);
      continue;
    }
    for (int o = 0; o < m; ++o) one_output(block, o);
  }
  for (int i = 0; i < m * kTermSums; ++i) {
    double total = 0.0;
    for (int l = 0; l < 16; ++l) total += static_cast<double>(lanes[i * 16 + l]);
    sums[i] = total;
  }
}

}  // namespace
}  // namespace torchext::cpu
