// Errors of rounding to levels over a vector of doubles. Each per-ISA source defines kLanes and
// Lookup, which reads arrays at a vector of indices; the rest is operators on vectors, which are
// the same IEEE operations.
#pragma once

#include "../../levels/error.h"

namespace torchext::levels {
namespace {

#define TX_INL static inline __attribute__((always_inline))

TX_INL V load(const double* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
TX_INL void store(double* p, V v) { std::memcpy(p, &v, sizeof v); }
TX_INL V larger(V a, V b) { return a > b ? a : b; }

/// Adds terms [n], a multiple of kLanes and at most kSliceTerms.
TX_INL void add_terms(const double* terms, int64_t n, V largest, ExactSum* sum) {
  double most = 0;
  for (int k = 0; k < kLanes; ++k) most = largest[k] > most ? largest[k] : most;
  if (most == 0) return;
  const int top = top_slice(most);
  if (top > sum->top) sum->top = top;
  const V c0 = slice_rounder(top) - V{}, c1 = slice_rounder(top - 1) - V{},
          c2 = slice_rounder(top - 2) - V{};
  V s0{}, s1{}, s2{};
  for (int64_t i = 0; i < n; i += kLanes) {
    V t = load(terms + i);
    const V p0 = (t + c0) - c0;
    t -= p0;
    const V p1 = (t + c1) - c1;
    t -= p1;
    s0 += p0;
    s1 += p1;
    s2 += (t + c2) - c2;
  }
  const V sums[] = {s0, s1, s2};
  for (int j = 0; j < 3; ++j) {
    double all = 0;
    for (int k = 0; k < kLanes; ++k) all += sums[j][k];
    add_slices(sum, top - j, all);
  }
}

/// A chunk of values and weights, in scaled units; n is a multiple of kLanes.
template <bool kWeighted, class Lookup>
TX_INL void add_chunk(const double* x, const double* weight, int64_t n, const LevelTable& table,
                      bool stochastic, Errors* out) {
  double inside[kSliceTerms], beyond[kSliceTerms];
  V most_inside{}, most_beyond{};
  I clipped{};
  const Lookup rung(table.rung), lower(table.level), upper(table.level + 1);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V v = load(x + i);
    I at{};
    for (int64_t step = table.width / 2; step > 0; step /= 2) {
      const I next = at + step;
      at = rung.at(next) <= v ? next : at;
    }
    const V below = v - lower.at(at), above = upper.at(at) - v;
    const V nearer = below < above ? below : above, zero{};
    V varies = below * above, biased = nearer * nearer;
    I outside = nearer < zero;
    if (kWeighted) {
      const V w = load(weight + i);
      varies = w * varies;
      biased = w * biased;
      clipped += outside & (w > zero);
    } else {
      clipped += outside;
    }
    if (stochastic) {
      varies = outside ? zero : varies;
      biased = outside ? biased : zero;
      store(inside + i, varies);
      most_inside = larger(varies, most_inside);
    }
    store(beyond + i, biased);
    most_beyond = larger(biased, most_beyond);
  }
  if (stochastic) add_terms(inside, n, most_inside, &out->variance);
  add_terms(beyond, n, most_beyond, &out->bias2);
  for (int k = 0; k < kLanes; ++k) out->clipped -= clipped[k];
}

template <class Lookup>
TX_INL void add_all(const WeightedValues& v, const LevelTable& table, bool stochastic,
                    int64_t begin, int64_t end, Errors* out) {
  double x[kSliceTerms] = {}, w[kSliceTerms] = {};
  for (; begin < end; begin += kSliceTerms) {
    const auto left = static_cast<uint64_t>(end - begin);
    const int64_t n = left < kSliceTerms ? static_cast<int64_t>(left) : kSliceTerms;
    for (int64_t i = 0; v.x64 != nullptr && i < n; ++i) x[i] = v.x64[begin + i] * v.scale;
    for (int64_t i = 0; v.x64 == nullptr && i < n; ++i)
      x[i] = static_cast<double>(v.x32[begin + i]) * v.scale;
    for (int64_t i = 0; v.weight != nullptr && i < n; ++i) {
      w[i] = v.weight[begin + i] * v.weight_scale;
      x[i] = w[i] == 0 ? table.level[0] : x[i];  // absent; the square may be infinite
    }
    const int64_t padded = (n + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = n; i < padded; ++i) {  // a level, which has no error
      x[i] = table.level[0];
      w[i] = 0;
    }
    if (v.weight != nullptr) {
      add_chunk<true, Lookup>(x, w, padded, table, stochastic, out);
    } else {
      add_chunk<false, Lookup>(x, w, padded, table, stochastic, out);
    }
  }
}

}  // namespace
}  // namespace torchext::levels
