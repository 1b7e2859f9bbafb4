#include "smawk.h"

#include <limits>

namespace torchext::levels {
namespace {

// Everything an entry needs of one position, in one cache line.
struct Position {
  double t, w, s, q;
};

struct Interval {
  const Position* at;
  double operator()(uint32_t k, uint32_t j) const {
    if (j <= k) return 0.0;
    const Position &a = at[k], &b = at[j];
    const double cost = (a.t + b.t) * (b.s - a.s) - a.t * b.t * (b.w - a.w) - (b.q - a.q);
    return cost > 0.0 ? cost : 0.0;
  }
};

struct Cluster {
  const Position* at;
  double operator()(uint32_t k, uint32_t j) const {
    if (j <= k) return 0.0;
    const Position &a = at[k], &b = at[j];
    const double s = b.s - a.s, cost = (b.q - a.q) - s * s / (b.w - a.w);
    return cost > 0.0 ? cost : 0.0;
  }
};

// Leftmost row minima of in[c] + cost(c, r) over all rows and columns 0 .. n - 1.
template <class Cost>
class Smawk {
 public:
  Smawk(Cost cost, uint32_t n) : cost_(cost), n_(n), columns_(3 * size_t{n} + 64) {}

  void run(const double* in, double* out, uint32_t* arg) {
    in_ = in;
    out_ = out;
    arg_ = arg;
    for (uint32_t c = 0; c < n_; ++c) columns_[c] = c;
    solve(0, 1, n_, columns_.data(), n_);
  }

 private:
  double entry(uint32_t r, uint32_t c) const { return in_[c] + cost_(c, r); }

  // Rows first, first + step, .. (count of them); the columns are followed by free memory.
  void solve(uint32_t first, uint32_t step, uint32_t count, uint32_t* columns, uint32_t width) {
    if (count == 0) return;
    uint32_t* kept = columns + width;  // at most one column per row survives
    uint32_t size = 0;
    for (uint32_t i = 0; i < width; ++i) {
      const uint32_t c = columns[i];
      while (size > 0) {
        const uint32_t row = first + (size - 1) * step;
        if (!(entry(row, kept[size - 1]) > entry(row, c))) break;
        --size;
      }
      if (size < count) kept[size++] = c;
    }
    solve(first + step, 2 * step, count / 2, kept, size);
    uint32_t k = 0;
    for (uint32_t i = 0; i < count; i += 2) {
      const uint32_t row = first + i * step,
                     last = i + 1 < count ? arg_[row + step] : kept[size - 1];
      double best = std::numeric_limits<double>::infinity();
      for (;; ++k) {
        const double value = entry(row, kept[k]);
        if (value < best) {
          best = value;
          arg_[row] = kept[k];
        }
        if (kept[k] == last || k + 1 == size) break;
      }
      out_[row] = best;
    }
  }

  Cost cost_;
  uint32_t n_;
  std::vector<uint32_t> columns_;
  const double* in_ = nullptr;
  double* out_ = nullptr;
  uint32_t* arg_ = nullptr;
};

template <class Cost>
std::vector<uint32_t> solve(Cost cost, uint32_t n, int64_t steps) {
  const uint32_t end = n - 1;
  std::vector<double> value(n), next(n);
  std::vector<uint32_t> arg(steps > 2 ? static_cast<size_t>(steps - 2) * n : 0);
  for (uint32_t j = 0; j < n; ++j) value[j] = cost(0, j);
  Smawk<Cost> smawk(cost, n);
  for (int64_t i = 0; i + 2 < steps; ++i) {
    smawk.run(value.data(), next.data(), arg.data() + static_cast<size_t>(i) * n);
    value.swap(next);
  }
  std::vector<uint32_t> path{end};
  uint32_t at = end;
  if (steps > 1) {  // the last layer is one row
    double best = std::numeric_limits<double>::infinity();
    for (uint32_t c = 0; c < n; ++c) {
      const double v = value[c] + cost(c, end);
      if (v < best) {
        best = v;
        at = c;
      }
    }
    path.push_back(at);
  }
  for (int64_t i = steps - 3; i >= 0; --i)
    path.push_back(at = arg[static_cast<size_t>(i) * n + at]);
  path.push_back(0);
  return {path.rbegin(), path.rend()};
}

/// Distinct values and their sums, plain: positions [m], or cuts [m + 1] for clusters.
std::vector<Position> positions(const double* x, const double* weight, size_t n, double* centre) {
  double total = 0, mean = 0;
  for (size_t i = 0; i < n; ++i) {
    const double w = weight != nullptr ? weight[i] : 1.0;
    total += w;
    mean += w * (x[i] - x[0]);
  }
  *centre = x[0] + mean / total;
  std::vector<Position> at;
  at.reserve(n + 1);
  Position sums{0, 0, 0, 0};
  for (size_t i = 0; i < n; ++i) {
    const double w = weight != nullptr ? weight[i] : 1.0, t = x[i] - *centre;
    if (w == 0) continue;
    if (at.empty() || at.back().t != t) at.push_back({t, sums.w, sums.s, sums.q});
    sums = {0, sums.w + w, sums.s + w * t, sums.q + w * t * t};
  }
  at.push_back({0, sums.w, sums.s, sums.q});
  return at;
}

}  // namespace

double smawk_levels(const double* x, const double* weight, size_t n, Objective objective,
                    int64_t count, std::vector<double>* levels) {
  double centre = 0;
  const std::vector<Position> at = positions(x, weight, n, &centre);
  const auto m = static_cast<uint32_t>(at.size() - 1);
  levels->clear();
  if (count >= m) {
    for (uint32_t i = 0; i < m; ++i) levels->push_back(at[i].t + centre);
  } else if (objective == Objective::stochastic) {
    for (const uint32_t k : solve(Interval{at.data()}, m, count - 1))
      levels->push_back(at[k].t + centre);
  } else {
    const std::vector<uint32_t> cuts = solve(Cluster{at.data()}, m + 1, count);
    for (size_t k = 0; k + 1 < cuts.size(); ++k) {
      const Position &a = at[cuts[k]], &b = at[cuts[k + 1]];
      levels->push_back(centre + (b.s - a.s) / (b.w - a.w));
    }
  }
  return direct_cost(x, weight, n, objective, levels->data(), levels->size());
}

}  // namespace torchext::levels
