#include "penalty.h"

#include <algorithm>
#include <cmath>

namespace torchext::levels {
namespace {

constexpr int kPasses = 16;
constexpr int64_t kThin = 64;  // candidates a step from which on fewer tell the price

/// Prices of few bits: sums with them stay exact where those of the data are, and ties ties.
double round_price(double price, int bits) {
  int exponent;
  const double mantissa = std::frexp(price, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(mantissa, bits)), exponent - bits);
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

/// Looks for the price of a number of steps, which falls with the price, at first with its third
/// power.
class PriceSearch {
 public:
  explicit PriceSearch(int64_t steps) : steps_(steps) {}

  /// The price to try after `t`, whose steps are too few or too many; 0 if there is none between.
  double next(const Trial& t) {
    Trial& side = t.steps < steps_ ? high_ : low_;
    const bool moved = last_.steps > 0 && last_.price != t.price;
    if (moved && last_.steps == t.steps) {
      power_ *= 2;
    } else if (moved) {
      power_ = std::clamp(std::log(last_.price / t.price) / log_ratio(t, last_), 1.0, 12.0);
    }
    side = last_ = t;
    double price = t.price * std::exp(std::clamp(power_ * log_ratio(t, steps_), -5.0, 5.0));
    if (high_.steps > 0 && low_.steps > 0) {
      const int64_t between = low_.steps - high_.steps;
      if (between <= 4 || ++doubled_ > 3 || !(price > low_.price && price < high_.price))
        price =
            (high_.cost - low_.cost) / static_cast<double>(between);  // both cost the same there
    }
    price = round_price(price, ++passes_ < 6 ? 12 : 40);
    return price != high_.price && price != low_.price && price > 0 ? price : 0;
  }

 private:
  static double log_ratio(const Trial& a, int64_t steps) {
    return std::log(static_cast<double>(a.steps) / static_cast<double>(steps));
  }
  static double log_ratio(const Trial& a, const Trial& b) { return log_ratio(a, b.steps); }

  const int64_t steps_;
  Trial high_, low_, last_;  // too high a price, too low, the last one
  double power_ = 3;
  int passes_ = 0, doubled_ = 0;
};

/// Passes over one list of candidates.
class Passes {
 public:
  Passes(const Axis& axis, Objective objective, const std::vector<uint32_t>& candidates,
         int64_t steps, bool precise, PathScratch* scratch)
      : candidates_(candidates),
        axis_(axis),
        most_(most_steps(steps)),
        precise_(precise),
        s_(scratch) {
    const bool ends = objective == Objective::stochastic;
    const TileKernels& tiles = tile_kernels();
    run_ = ends ? (precise ? tiles.priced_ends_precise : tiles.priced_ends)
                : (precise ? tiles.priced_clusters_precise : tiles.priced_clusters);
    fill_candidates(axis, objective, candidates, precise, &s_->from);
    prepare(ends);
  }

  /// The cheapest path at `price`; false if rounding is not small beside it.
  bool run(double price) {
    p_.price = price;
    const double largest = s_->from.scale + most_ * price;
    error_ = priced_error(largest, precise_, axis_);
    p_.margin = (2 * most_ + 2) * error_;
    if (!(p_.margin < 0.25 * price)) return false;
    if (precise_) p_.margin += 0x1p-50 * largest;  // columns are dropped by the high halves alone
    work_ += run_(p_) * (precise_ ? 4 : 1);
    return true;
  }

  int64_t work() const { return work_; }

  Trial trial() const {
    Trial t{p_.price, 0, 0};
    for (size_t k = last(); k > 0; k = s_->arg[k]) ++t.steps;
    const DD value{s_->value.h[last()], precise_ ? s_->value.l[last()] : 0.0};
    t.cost = (value - two_prod(p_.price, static_cast<double>(t.steps))).h;
    return t;
  }

  /// Bound on the rounding of a whole path; infinite where paths may be longer than foreseen.
  double slack() const {
    const double longest = s_->value.h[last()] / p_.price + 2;  // no cost is negative
    return longest <= most_ ? 5 * longest * error_ : HUGE_VAL;
  }

  Path path(const Trial& trial) const {
    Path out;
    out.value = trial.cost;
    out.slack = slack();
    out.work = work_;
    for (size_t k = last();; k = s_->arg[k]) {
      out.at.push_back(candidates_[k]);
      if (k == 0) break;
    }
    std::reverse(out.at.begin(), out.at.end());
    return out;
  }

 private:
  size_t last() const { return candidates_.size() - 1; }

  void prepare(bool ends) {
    const size_t m = candidates_.size();
    for (Plane* plane : {&s_->base, &s_->value}) plane->resize(m);
    s_->arg.resize(m + kTileRows);
    s_->ready.assign(m + kTileRows, static_cast<double>(m + kTileRows));
    const auto column = [this](const Plane& plane, int k) {
      p_.columns.a[k] = plane.h.data();
      p_.columns.low[k] = plane.l.data();
    };
    const auto row = [this](const Plane& plane, int k) {
      p_.rows.a[k] = plane.h.data();
      p_.rows.low[k] = plane.l.data();
    };
    const PathScratch::Candidates& c = s_->from;
    column(s_->base, 0);
    column(c.a, 1);
    column(c.b, 2);
    if (ends) {
      s_->x.resize(m);
      for (size_t r = 0; r < m; ++r) s_->x.h[r] = -c.b.h[r];
      for (size_t r = 0; precise_ && r < m; ++r) s_->x.l[r] = -c.b.l[r];
      row(s_->x, 0);
      row(c.a, 1);
      p_.height[0] = c.c.h.data();
      p_.height_low[0] = c.c.l.data();
    } else {
      column(c.c, 3);
      row(c.a, 0);
      row(c.b, 1);
      row(c.c, 2);
    }
    p_.rows.ready = p_.rows.end = s_->ready.data();
    p_.columns.count = p_.rows.count = static_cast<int64_t>(m);
    p_.base[0] = s_->base.h.data();
    p_.base_low[0] = s_->base.l.data();
    p_.value = s_->value.h.data();
    p_.value_low = s_->value.l.data();
    p_.arg = s_->arg.data();
  }

  const std::vector<uint32_t>& candidates_;
  const Axis& axis_;
  const double most_;
  const bool precise_;
  PathScratch* const s_;
  PricedPathFn* run_;
  PricedSteps p_{};
  double error_ = 0;
  int64_t work_ = 0;
};

}  // namespace

bool priced_path(const Axis& axis, Objective objective, const std::vector<uint32_t>& candidates,
                 int64_t steps, bool precise, double* price, PathScratch* scratch, Path* path) {
  int64_t thin_work = 0;
  if (!(*price > 0) && candidates.size() > static_cast<size_t>(kThin * steps)) {
    // Every fourth candidate leads to nearly the same price.
    std::vector<uint32_t> few;
    few.reserve(candidates.size() / 4 + 2);
    for (size_t k = 0; k + 1 < candidates.size(); k += 4) few.push_back(candidates[k]);
    few.push_back(candidates.back());
    if (!priced_path(axis, objective, few, steps, precise, price, scratch, path)) *price = 0;
    thin_work = path->work;
  }
  if (!(*price > 0)) *price = round_price(first_price(axis, objective, candidates, steps), 12);
  Passes passes(axis, objective, candidates, steps, precise, scratch);
  PriceSearch search(steps);
  for (int pass = 1; pass <= kPasses && passes.run(*price); ++pass) {
    const Trial trial = passes.trial();
    if (trial.steps == steps) {
      *path = passes.path(trial);
      path->work += thin_work;
      return true;
    }
    const double next = search.next(trial);
    if (next == 0) break;
    *price = next;
  }
  path->work = passes.work() + thin_work;
  return false;
}

std::vector<uint32_t> prune_by_price(const Axis& axis, Objective objective,
                                     const std::vector<uint32_t>& candidates, double price,
                                     const Path& path, PathScratch* scratch) {
  // The ways from a candidate to the end are the ways to it from the start of the mirrored data.
  const std::vector<double> reached(scratch->value.h.begin(), scratch->value.h.end());
  const size_t m = candidates.size();
  const auto top =
      static_cast<uint32_t>(axis.size() - (objective == Objective::stochastic ? 1 : 0));
  std::vector<uint32_t> reversed(m);
  for (size_t k = 0; k < m; ++k) reversed[k] = top - candidates[m - 1 - k];
  const auto steps = static_cast<int64_t>(path.at.size()) - 1;
  const Axis mirrored = mirror(axis);  // outlives the passes, which refer to it
  Passes passes(mirrored, objective, reversed, steps, false, scratch);
  if (!passes.run(price)) return candidates;
  const double most = path.value + price * static_cast<double>(steps) +
                      2 * (path.slack + passes.slack()) + 0x1p-50 * std::fabs(path.value);
  std::vector<uint32_t> kept;
  for (size_t k = 0; k < m; ++k)
    if (!(reached[k] + scratch->value.h[m - 1 - k] > most)) kept.push_back(candidates[k]);
  return kept;
}

}  // namespace torchext::levels
