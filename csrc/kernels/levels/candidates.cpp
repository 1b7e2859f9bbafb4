#include "candidates.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "dd.h"
#include "rounding_error.h"
#include "scaling.h"
#include "sort.h"
#include "tile.h"

namespace torchext::levels {
namespace {

/// Costs between neighbouring levels among the candidates. Both have the quadrangle inequality: per
/// value they are u v and min(u^2, v^2) with u = (x - a)^+ falling in a and v = (b - x)^+ rising in
/// b, and product and minimum of such are supermodular in (u, v).
class Costs {
 public:
  /// Candidates and axis in the same units.
  Costs(const Axis& axis, Objective objective, const std::vector<double>& candidates)
      : axis_(axis), objective_(objective), x_(candidates) {
    double radius = axis.radius;
    for (const double c : x_) {
      const auto at = std::lower_bound(axis.lo.begin(), axis.lo.end(), c);
      below_.push_back(static_cast<size_t>(at - axis.lo.begin()));
      radius = std::max(radius, std::fabs(c - axis.centre));
    }
    const double squares =
        axis.total() * radius * radius + 2 * radius * axis.largest_sum + axis.cut.back().q.h;
    error_ = (0x1p-96 + static_cast<double>(axis.size()) * 0x1p-102) * squares;
  }

  /// Nodes of the programme. Nearest: the candidates between two of which nothing is asked.
  size_t nodes() const { return x_.size() + (ends() ? 0 : 2); }
  size_t edges(size_t levels) const { return levels + (ends() ? -1 : 1); }
  bool candidate(size_t node) const { return ends() || (node > 0 && node <= x_.size()); }
  size_t index(size_t node) const { return ends() ? node : node - 1; }
  double error() const { return error_; }

  /// Cost of all values between two levels that are neighbours; 0 where they are the same.
  DD operator()(size_t k, size_t j) const {
    if (k == j) return {};
    if (ends()) return positive(between(k, j));
    if (k == 0 && j > x_.size()) return {kUnreachable, 0};  // no level at all
    if (k == 0) return positive(squares(0, below_[j - 1], x_[j - 1]));
    if (j > x_.size()) return positive(squares(below_[k - 1], axis_.size(), x_[k - 1]));
    const double a = x_[k - 1], b = x_[j - 1];
    const size_t middle = nearer_to_first(a, b);
    return positive(squares(below_[k - 1], middle, a)) +
           positive(squares(middle, below_[j - 1], b));
  }

 private:
  bool ends() const { return objective_ == Objective::stochastic; }
  static DD positive(DD x) { return x.h > 0 ? x : DD{}; }

  DD between(size_t k, size_t j) const {
    const DD a = axis_.about(x_[k]), b = axis_.about(x_[j]);
    const Cut &p = axis_.cut[below_[k]], &q = axis_.cut[below_[j]];
    return (a + b) * (q.s - p.s) - a * b * (q.w - p.w) - (q.q - p.q);
  }

  /// Squared distances of items [i, j) to c.
  DD squares(size_t i, size_t j, double c) const {
    const DD t = axis_.about(c);
    const Cut &p = axis_.cut[i], &q = axis_.cut[j];
    const DD s = q.s - p.s;
    return (q.q - p.q) - t * (s + s - t * (q.w - p.w));
  }

  /// Items at most as far from a as from b: 2 x <= a + b, decided exactly.
  size_t nearer_to_first(double a, double b) const {
    const DD sum = two_sum(a, b);
    const auto at = std::partition_point(axis_.lo.begin(), axis_.lo.end(), [&](double x) {
      return 2 * x < sum.h || (2 * x == sum.h && sum.l >= 0);
    });
    return static_cast<size_t>(at - axis_.lo.begin());
  }

  const Axis& axis_;
  Objective objective_;
  const std::vector<double>& x_;
  std::vector<size_t> below_;  // items below each candidate
  double error_;
};

/// Paths of a given number of edges from the first node to the last, by divide and conquer: the
/// best predecessor moves right with the node.
class Programme {
 public:
  Programme(const Costs& cost, size_t edges)
      : cost_(cost), edges_(edges), best_(cost.nodes()), next_(cost.nodes()) {}

  /// Nodes of the cheapest path, the leftmost among equals from the end, and its cost.
  std::vector<size_t> solve(DD* value) {
    const size_t n = best_.size(), last = n - 1;
    for (size_t j = 0; j < n; ++j) best_[j] = cost_(0, j);
    for (size_t e = 2; e < edges_; ++e) {
      arg_.emplace_back(n);
      fill(0, last, 0, last);
      best_.swap(next_);
    }
    std::vector<size_t> path{last};
    *value = best_[last];
    if (edges_ > 1) path.push_back(cheapest(last, 0, last, value));
    for (size_t e = arg_.size(); e-- > 0;) path.push_back(arg_[e][path.back()]);
    path.push_back(0);
    std::reverse(path.begin(), path.end());
    return path;
  }

  int64_t work = 0;

 private:
  uint32_t cheapest(size_t row, size_t from, size_t to, DD* value) {
    uint32_t arg = 0;
    *value = {2 * kUnreachable, 0};
    for (size_t c = from; c <= std::min(to, row); ++c, ++work) {
      const DD v = best_[c] + cost_(c, row);
      if (!(v < *value)) continue;
      *value = v;
      arg = static_cast<uint32_t>(c);
    }
    return arg;
  }

  void fill(size_t row0, size_t row1, size_t from, size_t to) {
    const size_t row = row0 + (row1 - row0) / 2;
    const uint32_t arg = arg_.back()[row] = cheapest(row, from, to, &next_[row]);
    if (row > row0) fill(row0, row - 1, from, arg);
    if (row < row1) fill(row + 1, row1, arg, to);
  }

  const Costs& cost_;
  size_t edges_;
  std::vector<DD> best_, next_;
  std::vector<std::vector<uint32_t>> arg_;
};

/// Of the candidates those that can be of use: up to one on either side of all values.
std::vector<double> useful(const std::vector<double>& all, double lo, double hi) {
  auto first = std::upper_bound(all.begin(), all.end(), lo);
  if (first != all.begin()) --first;
  auto last = std::lower_bound(first, all.end(), hi);
  if (last != all.end()) ++last;
  return {first, last};
}

}  // namespace

template <class T>
Solution solve_among(const T* x, const double* weight, size_t n, Objective objective,
                     int64_t levels, const std::vector<double>& candidates) {
  std::vector<double> values, weights;
  const double widest = std::max(std::fabs(candidates.front()), std::fabs(candidates.back()));
  const auto [power, weight_power] = copy_present(x, weight, n, widest, &values, &weights);
  if (values.empty()) return {};
  double* const w = weight != nullptr ? weights.data() : nullptr;
  sort_values(values.data(), w, values.size());
  Axis axis;
  axis_of_sorted(values.data(), w, values.size(), &axis);
  const auto [lo, hi] = ends_of(x, weight, n);
  const std::vector<double> given = useful(candidates, lo, hi);  // scaling may round small ones
  std::vector<double> grid(given);
  for (double& c : grid) c = std::ldexp(c, -power);

  const Costs cost(axis, objective, grid);
  std::vector<size_t> path(cost.nodes());
  std::iota(path.begin(), path.end(), size_t{0});
  Solution out;
  const bool choice = levels < static_cast<int64_t>(grid.size());
  double lower = 0;
  if (choice) {
    const size_t edges = cost.edges(static_cast<size_t>(levels));
    Programme programme(cost, edges);
    DD value;
    path = programme.solve(&value);
    out.work.entries = 4 * programme.work;
    // A minimum by divide and conquer is off by two errors of an entry per level of the recursion.
    const double slack = static_cast<double>(edges) *
                         (2 * std::log2(static_cast<double>(cost.nodes())) + 6) * cost.error();
    lower = std::ldexp(std::max(0.0, value.h - slack), 2 * power + weight_power);
  }
  for (size_t k = 0; k < path.size(); ++k)
    if (cost.candidate(path[k]) && (k == 0 || path[k] != path[k - 1]))
      out.levels.push_back(given[cost.index(path[k])]);
  const bool stochastic = objective == Objective::stochastic;
  const ErrorMeter meter(x, weight, static_cast<int64_t>(n), out.levels.data(),
                         static_cast<int64_t>(out.levels.size()));
  const RoundingError e = meter.measure(stochastic);
  out.cost = e.variance + e.bias2;
  out.settle(choice ? lower : out.cost);
  return out;
}

template Solution solve_among(const float*, const double*, size_t, Objective, int64_t,
                              const std::vector<double>&);
template Solution solve_among(const double*, const double*, size_t, Objective, int64_t,
                              const std::vector<double>&);

}  // namespace torchext::levels
