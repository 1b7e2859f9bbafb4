#include "solve.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "adaquant.h"
#include "bin_bound.h"
#include "bins.h"
#include "open_items.h"
#include "penalty.h"
#include "reference.h"
#include "scaling.h"
#include "smawk.h"
#include "sort.h"

namespace torchext::levels {
namespace {

// So many values, or kWhole a level, are sorted rather than binned.
constexpr size_t kSorted = size_t{1} << 14;
constexpr size_t kMostBins = size_t{1} << 15, kHistBins = size_t{1} << 12;
constexpr int64_t kLevelBins = 2048;
// Values per level up to which bins are not worth their while, and the search not on values: for
// few levels it soon is.
constexpr int64_t kFew = 64, kWhole = 1280, kWholeFew = 512, kFewLevels = 8;
constexpr int64_t kPricedLevels =
    8;  // so many levels of bins are found by their price, fewer by the search
constexpr double kBudget = 64;  // entries per value before the programme takes over

class Solver {
 public:
  Solver(Objective objective, int64_t levels, double rtol, Scratch* scratch)
      : objective_(objective), levels_(levels), rtol_(rtol), s_(scratch) {}

  Solution exact(const Axis& axis, const Bins* bins) {
    const auto few = static_cast<size_t>(kFew * levels_);
    const bool singles = all_single(axis);
    if (!singles && axis.size() <= few) {  // most are opened sooner or later
      std::vector<uint32_t> items, live(axis.size());
      std::iota(live.begin(), live.end(), 0u);
      for (const uint32_t i : live)
        if (!axis.single(i)) items.push_back(i);
      Axis opened;
      open_items(axis, *bins, items, live, &opened);
      return exact(opened, nullptr);
    }
    const int64_t each = levels_ > kFewLevels ? kWhole : ends() ? kWholeFew : kWholeFew / 4;
    const auto most = static_cast<size_t>(each * levels_);
    if (singles && axis.size() <= most) return whole(axis);
    CoarseToFine search(objective_, levels_);
    search.start(axis);
    const auto budget =
        static_cast<int64_t>(kBudget * (bins != nullptr ? axis.total() : axis.size()));
    search.refine(axis, budget, singles ? 0 : rtol_);
    if (singles) return finish(axis, search);
    if (search.within(rtol_)) return middles(axis, search);
    // Open the bins in which a level may lie; what they hold is the next axis.
    std::vector<uint32_t> live, items;
    std::vector<bool> used(axis.size() + 1, false);
    for (const BlockLayer& l : search.layers())
      for (const Block& b : l.blocks) std::fill(used.begin() + b.lo, used.begin() + b.hi + 1, true);
    for (uint32_t i = 0; i < axis.size(); ++i) {
      if (!used[i]) continue;
      live.push_back(i);
      if (!axis.single(i)) items.push_back(i);
    }
    Axis opened;
    const std::vector<uint32_t> first = open_items(axis, *bins, items, live, &opened);
    search.reopen(axis, first);
    if (!search.work.fell_back) search.refine(opened, budget);
    return finish(opened, search);
  }

  /// Within the tolerance, where there is one; otherwise what the bins give.
  Solution approximate(const Axis& axis, const Bins* bins) {
    if (rtol_ > 0) return exact(axis, bins);
    if (all_single(axis) && axis.size() <= static_cast<size_t>(kFew * levels_)) return whole(axis);
    if (std::optional<Solution> found = priced_bins(axis)) return *found;
    CoarseToFine search(objective_, levels_);
    search.start(axis);
    search.refine(axis, INT64_MAX);
    // Two levels leave nothing to search.
    const bool settled = all_single(axis) || search.incumbent().empty();
    return settled ? finish(axis, search) : middles(axis, search);
  }

  /// The programme over all items.
  Solution whole(const Axis& axis) {
    if (const auto m = static_cast<int64_t>(axis.size()); m <= levels_) return everything(axis);
    const size_t positions = axis.size() + (ends() ? 0 : 1);
    s_->all.resize(positions);
    std::iota(s_->all.begin(), s_->all.end(), 0u);
    int64_t work = 0;
    if (s_->priced) {
      const std::optional<Solution> found = priced(axis, s_->all, &work);
      if (found) return *found;
    }
    return over(axis, s_->all);
  }

  /// The optimum over `candidates` by its price, in plain double if that proves it, otherwise in
  /// double-double.
  std::optional<Solution> priced(const Axis& axis, std::vector<uint32_t> candidates,
                                 int64_t* work) {
    const int64_t steps = ends() ? levels_ - 1 : levels_;
    double price = 0;
    for (const bool precise : {false, true}) {
      Path path;
      const bool found =
          priced_path(axis, objective_, candidates, steps, precise, &price, &s_->path, &path);
      *work += path.work;
      if (!found) continue;
      Solution out = solution(axis, path.at, path.value - path.slack);
      out.work.entries = *work;
      if (out.certified) return out;
      if (precise) continue;
      candidates = prune_by_price(axis, objective_, candidates, price, path, &s_->path);
      if (static_cast<int64_t>(candidates.size()) <= steps) break;
    }
    return std::nullopt;
  }

  /// The programme over `candidates`, the same for every level but the first and the last.
  Solution over(const Axis& axis, const std::vector<uint32_t>& candidates) {
    s_->first.assign(1, candidates.front());
    s_->last.assign(1, candidates.back());
    Layers layers(static_cast<size_t>(ends() ? levels_ : levels_ + 1), &candidates);
    layers.front() = &s_->first;
    layers.back() = &s_->last;
    return programme(axis, layers, false);
  }

  Solution everything(const Axis& axis) const {
    Solution out;
    out.levels = axis.lo;
    out.certified = true;
    return out;
  }

  Solution solution(const Axis& axis, const std::vector<uint32_t>& path, double lower) const {
    Solution out;
    for (size_t k = 0; k < path.size(); ++k) {
      if (ends()) {
        const double v = axis.lo[path[k]];
        if (out.levels.empty() || v > out.levels.back()) out.levels.push_back(v);
      } else if (k > 0 && path[k] > path[k - 1]) {
        const uint32_t a = path[k - 1], b = path[k];
        out.levels.push_back(
            cluster_mean(axis.cut[a], axis.cut[b], axis.centre, axis.lo[a], axis.hi[b - 1]));
      }
    }
    bool accurate = false;
    out.cost = path_cost(axis, objective_, path, &accurate);
    if (!accurate && all_single(axis)) {
      std::vector<double> weight(axis.size());
      for (size_t i = 0; i < axis.size(); ++i) weight[i] = (axis.cut[i + 1].w - axis.cut[i].w).h;
      if (!ends()) {  // means cancel where costs do
        const size_t cells = path.size() - 1;
        out.levels.resize(cells);
        out.levels.resize(
            direct_means(axis.lo.data(), weight.data(), path.data(), cells, out.levels.data()));
      }
      out.cost = direct_cost(axis.lo.data(), weight.data(), axis.size(), objective_,
                             out.levels.data(), out.levels.size());
    }
    out.settle(lower);
    return out;
  }

 private:
  /// The best levels among the lower ends of bins and a bound on all others, if a price leads to
  /// them and rounding hides little of the gap between.
  std::optional<Solution> priced_bins(const Axis& axis) {
    const int64_t steps = levels_ - 1;
    if (!ends() || levels_ < kPricedLevels || static_cast<int64_t>(axis.size()) <= levels_)
      return std::nullopt;
    s_->all.resize(axis.size());
    std::iota(s_->all.begin(), s_->all.end(), 0u);
    Path path;
    double price = 0;
    if (!priced_path(axis, objective_, s_->all, steps, false, &price, &s_->path, &path))
      return std::nullopt;
    int64_t work = path.work;
    const double bound = all_single(axis)
                             ? path.value - path.slack
                             : bin_bound(axis, price, steps, s_->path.arg.data(), &work);
    Solution out = solution(axis, path.at, bound);
    out.work.entries = work;
    if (!out.certified && !(path.slack <= 0.01 * (out.cost - bound))) return std::nullopt;
    return out;
  }

  bool ends() const { return objective_ == Objective::stochastic; }

  /// The best path of block middles that the search has met.
  Solution middles(const Axis& axis, const CoarseToFine& search) const {
    Solution out = solution(axis, search.incumbent(), search.lower());
    out.work = search.work;
    return out;
  }

  static bool all_single(const Axis& axis) { return axis.lo == axis.hi; }

  Solution finish(const Axis& axis, CoarseToFine& search) {
    const std::vector<std::vector<uint32_t>> lists = search.candidates();
    if (search.work.fell_back && s_->priced) {
      std::vector<bool> live(axis.size() + 1, false);
      for (const auto& list : lists)
        for (const uint32_t k : list) live[k] = true;
      std::vector<uint32_t> all;
      for (uint32_t k = 0; k <= axis.size(); ++k)
        if (live[k]) all.push_back(k);
      std::optional<Solution> found = priced(axis, std::move(all), &search.work.entries);
      if (found) {
        found->work = search.work;
        return *found;
      }
    }
    Layers layers;
    for (const auto& l : lists) layers.push_back(&l);
    Solution out = programme(axis, layers, !search.work.fell_back);
    search.work.entries += out.work.entries;
    out.work = search.work;
    return out;
  }

  /// Certified in plain double where that is enough; otherwise what plain double cannot exclude is
  /// weighed in double-double.
  Solution programme(const Axis& axis, const Layers& layers, bool precise) {
    std::vector<double> reached;
    const Path path =
        best_path(axis, objective_, layers, precise, &s_->path, precise ? nullptr : &reached);
    Solution out = solution(axis, path.at, path.value - path.slack);
    out.work.entries = path.work;
    if (out.certified || precise) return out;
    const auto kept = prune_candidates(axis, objective_, layers, path, reached, &s_->path);
    Layers few;
    for (const auto& list : kept) few.push_back(&list);
    Solution exact = programme(axis, few, true);
    exact.work.entries += 2 * path.work;
    return exact;
  }

  Objective objective_;
  int64_t levels_;
  double rtol_;
  Scratch* s_;
};

Solution by_method(Solver* solver, Method method, Objective objective, int64_t levels,
                   const Axis& axis, const Bins* bins) {
  switch (method) {
    case Method::hist: return solver->approximate(axis, bins);
    case Method::adaquant:
      if (static_cast<int64_t>(axis.size()) > levels) {
        Solution out = solver->over(axis, merge_intervals(axis, levels));
        out.certified = false;  // optimal among the ends only
        out.lower_bound = 0;
        return out;
      }
      return solver->whole(axis);
    case Method::dnc: return solver->whole(axis);
    case Method::dp:
      if (static_cast<int64_t>(axis.size()) > levels) {
        std::vector<double> weight(axis.size());
        for (size_t i = 0; i < axis.size(); ++i) weight[i] = (axis.cut[i + 1].w - axis.cut[i].w).h;
        const auto path = reference_path(axis.lo, weight, objective, levels);
        Solution out = solver->solution(axis, path, 0);
        out.settle(out.cost);  // by exhaustion: every path was weighed
        return out;
      }
      return solver->whole(axis);
    default: return solver->exact(axis, bins);
  }
}

/// Limits on the number of bins. Few bins hold more values that have to be looked at one by one,
/// which for few levels are few; the bounds for nearest rounding are looser and need finer ones.
std::pair<size_t, size_t> bin_limits(Method method, bool ends, int64_t levels, double rtol) {
  if (method == Method::hist && rtol == 0) return {kHistBins, kHistBins};
  if (!ends) return {kHistBins / 2, kMostBins};
  const auto few = static_cast<size_t>(kLevelBins * levels);
  return {kHistBins / 4, std::clamp(few, kHistBins, kMostBins)};
}

}  // namespace

bool counts_values(Method method, size_t n, int64_t levels) {
  if (method == Method::hist) return n > kSorted;
  // For many levels most bins would be opened again.
  return method == Method::exact && n > std::max(kSorted, static_cast<size_t>(kWhole * levels));
}

template <class T>
Solution solve(const T* x, const double* weight, size_t n, Objective objective, Method method,
               int64_t levels, Scratch* s, double rtol) {
  Solver solver(objective, levels, method == Method::hist ? rtol : 0, s);
  const bool binned = weight == nullptr && counts_values(method, n, levels);
  if constexpr (std::is_same_v<T, float>) {
    if (binned) {
      const bool ends = objective == Objective::stochastic;
      const auto [least, most] = bin_limits(method, ends, levels, rtol);
      const FloatBins bins(x, n, least, most, ends);
      if (!bins.finite()) {
        Solution none;
        none.finite = false;
        return none;
      }
      return by_method(&solver, method, objective, levels, bins.axis, &bins);
    }
  }
  if constexpr (std::is_same_v<T, double>) {
    // Sorted already: the values stay where they are.
    if (binned && std::is_sorted(x, x + n) &&
        scaling_exponent(std::max(std::fabs(x[0]), std::fabs(x[n - 1]))) == 0) {
      const RunBins bins(x, n);
      return by_method(&solver, method, objective, levels, bins.axis, &bins);
    }
  }
  Scaling scaling;
  const double* const given = weight;
  const size_t all = n;
  if (std::is_same_v<T, float> && weight == nullptr && method != Method::smawk) {
    s->x.resize(n);
    sort_floats(reinterpret_cast<const float*>(x), n, s->x.data());
  } else {
    scaling = copy_present(x, weight, n, 0, &s->x, &s->weight);
    n = s->x.size();
    if (n == 0) return {};
    if (weight != nullptr) weight = s->weight.data();
    double* const values = s->x.data();
    if (method == Method::smawk && weight == nullptr && !std::is_sorted(values, values + n))
      std::sort(values, values + n);  // as the baseline of the benchmarks would
    sort_values(values, weight != nullptr ? s->weight.data() : nullptr, n);
  }
  Solution out;
  if (method == Method::smawk) {
    out.cost = smawk_levels(s->x.data(), weight, n, objective, levels, &out.levels);
  } else if (binned) {
    const RunBins bins(s->x.data(), n);
    out = by_method(&solver, method, objective, levels, bins.axis, &bins);
  } else {
    axis_of_sorted(s->x.data(), weight, n, &s->axis);
    out = by_method(&solver, method, objective, levels, s->axis, nullptr);
  }
  for (double& v : out.levels) v = std::ldexp(v, scaling.value);
  if (scaling.value != 0 && objective == Objective::stochastic)  // which rounds small values
    std::tie(out.levels.front(), out.levels.back()) = ends_of(x, given, all);
  const int power = 2 * scaling.value + scaling.weight;
  out.cost = std::ldexp(out.cost, power);
  out.lower_bound = std::ldexp(out.lower_bound, power);
  return out;
}

template Solution solve(const float*, const double*, size_t, Objective, Method, int64_t, Scratch*,
                        double);
template Solution solve(const double*, const double*, size_t, Objective, Method, int64_t, Scratch*,
                        double);

}  // namespace torchext::levels
