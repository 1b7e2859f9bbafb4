#include "kernels/column_cells.h"

#include <algorithm>
#include <cmath>

namespace torchext::cpu {
namespace {

constexpr int64_t kMostRuns = 2048;   // runs of bins that cuts are made of
constexpr int64_t kLeastNodes = 128;  // nodes of the exact programme that descent starts from

/// Squared error of bins [b, e) about their mean.
double spread_of(const Bins& s, int64_t b, int64_t e) {
  const double n = s.count[e] - s.count[b], t = s.sum[e] - s.sum[b];
  return n > 0 ? std::max(0.0, s.square[e] - s.square[b] - t * t / n) : 0.0;
}

double mean_of(const Bins& s, int64_t b, int64_t e) {
  return (s.sum[e] - s.sum[b]) / (s.count[e] - s.count[b]);
}

/// Lloyd iterations over cells given by their first bins cut[0] = 0 < cut[1] < .. < cut[levels] =
/// bins; returns the squared error. Cells are never empty: a cut always leaves its neighbours a
/// bin.
double iterate(const Bins& s, int64_t levels, int iterations, std::vector<int64_t>* scratch,
               int64_t* cut) {
  const int64_t bins = s.size();
  scratch->resize(levels);
  int64_t* next = scratch->data();
  for (int step = 0; step < iterations; ++step) {
    bool moved = false;
    double left = mean_of(s, cut[0], cut[1]);
    for (int64_t c = 1; c < levels; ++c) {
      const double right = mean_of(s, cut[c], cut[c + 1]), middle = (left + right) / 2;
      int64_t at = cut[c];  // cuts move by a few bins, so a walk beats a search
      while (at < bins && s.value[at] <= middle) ++at;
      while (at > 0 && s.value[at - 1] > middle) --at;
      next[c] = at;
      left = right;
    }
    for (int64_t c = 1; c < levels; ++c) {
      const int64_t to = std::min(std::max(next[c], cut[c - 1] + 1), bins - (levels - c));
      moved = moved || to != cut[c];
      cut[c] = to;
    }
    if (!moved) break;
  }
  double error = 0;
  for (int64_t c = 0; c < levels; ++c) error += spread_of(s, cut[c], cut[c + 1]);
  return error;
}

/// Cuts into `cells` parts at equal steps of the cumulative weight of runs of bins, at least `runs`
/// and fewer than twice as many; weight(count, width) of a run.
template <class Weight>
void start_cuts(const Bins& s, int64_t cells, int64_t runs, const Weight& weight, int64_t* cut) {
  const int64_t bins = s.size(), run = std::max<int64_t>(1, bins / runs);
  const auto width = [&](int64_t b, int64_t e) {
    return s.value[std::min(e, bins - 1)] - s.value[b] +
           (e >= bins ? s.value[bins - 1] - s.value[b - (b > 0)] : 0.0);
  };
  double total = 0, weights[kMostRuns];
  for (int64_t b = 0; b < bins; b += run) {
    const int64_t e = std::min(b + run, bins);
    total += weights[b / run] = weight(s.count[e] - s.count[b], width(b, e));
  }
  const double step = total / static_cast<double>(cells);
  double reached = 0;
  int64_t c = 1;
  for (int64_t b = 0; b < bins && c < cells; b += run) {
    const int64_t e = std::min(b + run, bins);
    const double w = weights[b / run];
    while (c < cells && reached + w >= step * static_cast<double>(c)) {
      const double part = (step * static_cast<double>(c) - reached) / w;
      cut[c++] = b + static_cast<int64_t>(part * static_cast<double>(e - b));
    }
    reached += w;
  }
  cut[0] = 0;
  cut[cells] = bins;
  for (int64_t k = 1; k < cells; ++k)
    cut[k] = std::min(std::max(cut[k], cut[k - 1] + 1), bins - (cells - k));
}

/// The density that is optimal for many levels is the cube root of the data's (here its power 5/16,
/// which IEEE square roots give exactly alike everywhere).
double density_weight(double n, double w) {
  const double r = std::sqrt(std::sqrt(n / std::max(w, 1e-30)));
  return r * std::sqrt(std::sqrt(r)) * w;
}

/// Exact levels for runs of bins whose borders follow the asymptotic density; with `ends`, from a
/// value just there to another.
void solve_runs(const Bins& s, int64_t levels, levels::Objective objective, const float* ends,
                CellScratch* scratch) {
  const int64_t nodes = std::min(s.size(), std::max(kLeastNodes, 4 * levels));
  scratch->cut.resize(nodes + 1);
  int64_t* cut = scratch->cut.data();
  start_cuts(s, nodes, kMostRuns / 2, density_weight, cut);
  scratch->node.clear();
  scratch->weight.clear();
  for (int64_t k = 0; k < nodes; ++k) {
    scratch->node.push_back(mean_of(s, cut[k], cut[k + 1]));
    scratch->weight.push_back(s.count[cut[k + 1]] - s.count[cut[k]]);
  }
  for (int k = 0; ends != nullptr && k < 2; ++k) {  // the range is that of all rows
    scratch->node.push_back(ends[k]);
    scratch->weight.push_back(1e-6);
  }
  scratch->level = levels::solve(scratch->node.data(), scratch->weight.data(), scratch->node.size(),
                                 objective, levels::Method::exact, levels, &scratch->solver)
                       .levels;
}

/// Cells of the bins nearest to each of the solved levels.
void cut_between(const Bins& s, const std::vector<double>& level, int64_t levels, int64_t* cut) {
  const int64_t bins = s.size();
  cut[0] = 0;
  cut[levels] = bins;
  for (int64_t c = 1; c < levels; ++c) {
    const auto here = static_cast<size_t>(std::min<int64_t>(c, level.size() - 1));
    const double middle = (level[here - 1] + level[here]) / 2;
    const int64_t at = std::upper_bound(s.value.begin(), s.value.end(), middle) - s.value.begin();
    cut[c] = std::min(std::max(at, cut[c - 1] + 1), bins - (levels - c));
  }
}

/// Moves each inner level to its best bin between its neighbours, until none moves.
///
/// With neighbours a < c the best b is the first with a share of at least
/// sum (c - t) / (c - a) of the values t between them; a sweep never raises the cost.
void descend(const Bins& s, int sweeps, std::vector<double>* level,
             std::vector<int64_t>* position) {
  const auto last = static_cast<int64_t>(level->size()) - 1;
  double* q = level->data();
  position->resize(last + 1);
  int64_t* at = position->data();  // the outer levels stand beside the bins
  at[0] = -1;
  at[last] = s.size();
  for (int64_t i = 1; i < last; ++i) {
    at[i] = std::lower_bound(s.value.begin(), s.value.end(), q[i]) - s.value.begin();
    at[i] = std::max(at[i - 1] + 1, std::min(at[i], s.size() - (last - i)));
    q[i] = s.value[at[i]];
  }
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    bool moved = false;
    for (int64_t i = 1; i < last; ++i) {
      const int64_t from = at[i - 1] + 1, to = at[i + 1];  // bins strictly between the neighbours
      const double a = q[i - 1], c = q[i + 1], n = s.count[to] - s.count[from];
      const double share =
          s.count[from] + (c * n - (s.sum[to] - s.sum[from])) / (c - a);  // 0 <= .. <= n
      int64_t b = at[i];
      while (b + 1 < to && s.count[b + 1] < share) ++b;
      while (b > from && s.count[b] >= share) --b;
      moved = moved || b != at[i];
      at[i] = b;
      q[i] = s.value[b];
    }
    if (!moved) break;
  }
}

/// Puts ascending numbers into float32, equal ones once.
class Distinct {
 public:
  explicit Distinct(float* out) : out_(out) {}

  void put(double value) {
    const auto rounded = static_cast<float>(value);
    if (used_ == 0 || rounded > out_[used_ - 1]) out_[used_++] = rounded;
  }
  int64_t used() const { return used_; }

 private:
  float* out_;
  int64_t used_ = 0;
};

}  // namespace

int64_t find_levels(const Bins& bins, const float* ends, int64_t levels, ColumnLevels kind,
                    int iterations, CellScratch* s, float* out) {
  Distinct level(out);
  if (bins.size() <= levels) {
    for (const double value : bins.value) level.put(value);
    return level.used();
  }
  if (kind == ColumnLevels::stochastic) {
    solve_runs(bins, levels, levels::Objective::stochastic, ends, s);
    descend(bins, iterations, &s->level, &s->next);
    for (const double value : s->level) level.put(value);
    return level.used();
  }
  const int64_t room = levels + 1;
  const int64_t* best;
  if (kind == ColumnLevels::nearest) {
    solve_runs(bins, levels, levels::Objective::nearest, nullptr, s);
    s->cut.resize(room);
    cut_between(bins, s->level, levels, s->cut.data());
    iterate(bins, levels, iterations, &s->next, s->cut.data());
    best = s->cut.data();
  } else {  // the better of two starts counts
    s->cut.resize(2 * room);
    int64_t *a = s->cut.data(), *b = a + room;
    start_cuts(bins, levels, 256, [](double n, double) { return n; }, a);
    start_cuts(bins, levels, 256, density_weight, b);
    const double error_a = iterate(bins, levels, iterations, &s->next, a),
                 error_b = iterate(bins, levels, iterations, &s->next, b);
    best = error_b < error_a ? b : a;
  }
  for (int64_t c = 0; c < levels; ++c) level.put(mean_of(bins, best[c], best[c + 1]));
  return level.used();
}

LevelCost cost_of(const Bins& bins, const float* level, int64_t levels, ColumnLevels kind) {
  // Rounding error + x^2 is piecewise linear in x: a bin's mean tells it exactly, but where a kink
  // lies inside the bin. Kinks are the levels (convex), or the middles between levels (concave).
  const bool draw = kind == ColumnLevels::stochastic;
  const double rows = bins.count[bins.size()];
  double error = 0, inside = 0, kinks = 0;
  int64_t c = 0;
  const auto middle = [&](int64_t k) { return (double{level[k]} + level[k + 1]) / 2; };
  for (int64_t b = 0; b < bins.size(); ++b) {
    const double t = bins.value[b], n = bins.count[b + 1] - bins.count[b], w = bins.width[b];
    while (c + (draw ? 2 : 1) < levels && (draw ? double{level[c + 1]} : middle(c)) < t) ++c;
    const double low = t - level[c];
    error += draw ? n * low * (level[std::min(c + 1, levels - 1)] - t) : n * low * low;
    inside += n * w * w / 12;
    const auto kink = [&](int64_t k) {  // slopes differ by `turn` at `x`
      if (k < 0 || k + (draw ? 2 : 1) >= levels) return;
      const double x = draw ? double{level[k + 1]} : middle(k);
      const double turn =
          draw ? double{level[k + 2]} - level[k] : 2 * (double{level[k + 1]} - level[k]);
      if (std::fabs(t - x) < w) kinks += n * w * turn / 4;
    };
    kink(c - 1);
    kink(c);
  }
  const double mean = (draw ? error - inside : error + inside) / rows;
  return {std::max(0.0, mean), (kinks + 2 * inside) / rows};
}

}  // namespace torchext::cpu
