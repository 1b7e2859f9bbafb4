#include "penalty.h"

#include <algorithm>
#include <cmath>

namespace torchext::levels {
namespace {

constexpr int kPasses = 10;

/// A price of few bits: sums with it stay exact where those of the data are, and ties ties.
double round_price(double price) {
  int exponent;
  const double mantissa = std::frexp(price, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(mantissa, 12)), exponent - 12);
}

/// f(s) ~ (integral of density^(1/3))^3 / (6 steps^2), half of that for nearest; the price is its
/// slope. The density comes from runs of candidates.
double first_price(const Axis& axis, Objective objective, const std::vector<uint32_t>& candidates,
                   int64_t steps) {
  const size_t m = candidates.size(), run = std::max<size_t>(1, m / static_cast<size_t>(2 * steps));
  const auto last = axis.size() - 1;
  double sum = 0;
  for (size_t i = 0; i + 1 < m; i += run) {
    const size_t a = candidates[i], b = candidates[std::min(i + run, m - 1)];
    const double width = axis.lo[std::min(b, last)] - axis.lo[std::min(a, last)];
    sum += std::cbrt((axis.cut[b].w.h - axis.cut[a].w.h) * width * width);
  }
  const auto n = static_cast<double>(steps);
  return (objective == Objective::stochastic ? 1.0 / 3 : 1.0 / 6) * sum * sum * sum / (n * n * n);
}

/// What a price led to.
struct Trial {
  double price = 0, cost = 0;
  int64_t steps = 0;
};

/// The next price, given one of too few steps (`high`) and one of too many, if known.
double next_price(const Trial& last, const Trial* high, const Trial* low, int64_t steps) {
  if (high != nullptr && low != nullptr && low->steps - high->steps <= 4)  // where both cost the same
    return (high->cost - low->cost) / static_cast<double>(low->steps - high->steps);
  const double ratio = static_cast<double>(last.steps) / static_cast<double>(steps);
  const double guess = last.price * std::clamp(ratio * ratio * ratio, 1.0 / 64, 64.0);
  if (high == nullptr || low == nullptr || (guess > low->price && guess < high->price)) return guess;
  return std::sqrt(low->price) * std::sqrt(high->price);
}

}  // namespace

bool priced_path(const Axis& axis, Objective objective, const std::vector<uint32_t>& candidates,
                 int64_t steps, PathScratch* s, Path* path) {
  const bool ends = objective == Objective::stochastic;
  const size_t m = candidates.size();
  fill_candidates(axis, objective, candidates, false, &s->from);
  s->base.resize(m);
  s->value.resize(m);
  s->arg.resize(m + kTileRows);
  s->ready.assign(m + kTileRows, static_cast<double>(m + kTileRows));
  PricedSteps p{};
  const auto give = [](const Plane& plane, const double** a, const double** low, int k) {
    a[k] = plane.h.data();
    low[k] = plane.l.data();
  };
  give(s->base, p.columns.a, p.columns.low, 0);
  give(s->from.a, p.columns.a, p.columns.low, 1);
  give(s->from.b, p.columns.a, p.columns.low, 2);
  if (ends) {
    s->x.resize(m);
    for (size_t r = 0; r < m; ++r) s->x.h[r] = -s->from.b.h[r];
    give(s->x, p.rows.a, p.rows.low, 0);
    give(s->from.a, p.rows.a, p.rows.low, 1);
    p.height = s->from.c.h.data();
    p.height_low = s->from.c.l.data();
  } else {
    give(s->from.c, p.columns.a, p.columns.low, 3);
    give(s->from.a, p.rows.a, p.rows.low, 0);
    give(s->from.b, p.rows.a, p.rows.low, 1);
    give(s->from.c, p.rows.a, p.rows.low, 2);
  }
  p.rows.ready = p.rows.end = s->ready.data();
  p.columns.count = p.rows.count = static_cast<int64_t>(m);
  p.base = s->base.h.data();
  p.base_low = s->base.l.data();
  p.value = s->value.h.data();
  p.value_low = s->value.l.data();
  p.arg = s->arg.data();
  const PricedPathFn* const run =
      ends ? tile_kernels().priced_ends : tile_kernels().priced_clusters;
  // No path here has more steps than this: it would cost more than the path that is found.
  const auto most = static_cast<double>(8 * steps + 64);
  Trial trial, high, low;
  p.price = round_price(first_price(axis, objective, candidates, steps));
  for (int pass = 0; pass < kPasses; ++pass) {
    const double error =
        10 * 0x1p-53 * (s->from.scale + most * p.price) + axis.cut_error;  // of one entry
    p.margin = (2 * most + 2) * error;
    if (!(p.margin < 0x1p-6 * p.price)) return false;
    path->work += run(p);
    const double value = s->value.h[m - 1];
    trial = {p.price, value, 0};
    for (size_t k = m - 1; k > 0; k = s->arg[k]) ++trial.steps;
    trial.cost -= p.price * static_cast<double>(trial.steps);
    const double longest = value / p.price + 2;  // as all costs are at least 0
    if (trial.steps == steps) {
      if (longest > most) return false;
      path->value = trial.cost;
      path->slack = 5 * longest * error;
      path->at.clear();
      for (size_t k = m - 1;; k = s->arg[k]) {
        path->at.push_back(candidates[k]);
        if (k == 0) break;
      }
      std::reverse(path->at.begin(), path->at.end());
      return true;
    }
    (trial.steps < steps ? high : low) = trial;
    const double next = round_price(next_price(trial, high.steps > 0 ? &high : nullptr,
                                               low.steps > 0 ? &low : nullptr, steps));
    if (next == high.price || next == low.price || !(next > 0)) return false;
    p.price = next;
  }
  return false;
}

}  // namespace torchext::levels
