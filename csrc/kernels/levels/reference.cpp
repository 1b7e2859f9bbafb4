#include "reference.h"

#include <limits>

namespace torchext::levels {
namespace {

constexpr auto kNone = std::numeric_limits<long double>::infinity();

/// Costs of the intervals (x_k, x_j) for k = j, j - 1, .. 0: lowering the left level by d raises
/// the variance of every point inside by d times its distance to the right one.
class Interval {
 public:
  Interval(const std::vector<double>& x, const std::vector<double>& w, size_t j)
      : x_(x), w_(w), j_(j) {}

  long double extend(size_t k) {
    const long double gap = static_cast<long double>(x_[k + 1]) - x_[k];
    if (k + 1 < j_) reach_ += w_[k + 1] * (static_cast<long double>(x_[j_]) - x_[k + 1]);
    return cost_ += gap * reach_;
  }

 private:
  const std::vector<double>&x_, &w_;
  size_t j_;
  long double reach_ = 0, cost_ = 0;
};

/// Costs of the clusters [k, j) for k = j - 1, .. 0.
class Cluster {
 public:
  Cluster(const std::vector<double>& x, const std::vector<double>& w, size_t) : x_(x), w_(w) {}

  long double extend(size_t k) {
    if (total_ == 0) {
      mean_ = x_[k];
      total_ = w_[k];
      return 0;
    }
    const long double w = w_[k], d = x_[k] - mean_, all = total_ + w;
    cost_ += d * d * (total_ / all * w);
    mean_ += d * (w / all);
    total_ = all;
    return cost_;
  }

 private:
  const std::vector<double>&x_, &w_;
  long double total_ = 0, mean_ = 0, cost_ = 0;
};

template <class Cost>
std::vector<uint32_t> solve(const std::vector<double>& x, const std::vector<double>& w, size_t n,
                            size_t steps) {
  // value[i * n + j]: the cheapest way to reach j in i steps.
  std::vector<long double> value((steps + 1) * n, kNone);
  std::vector<uint32_t> arg((steps + 1) * n, 0);
  value[0] = 0;
  for (size_t j = 0; j < n; ++j) {
    if (j > 0) value[j] = kNone;
    Cost cost(x, w, j);
    for (size_t k = j; k-- > 0;) {
      const long double c = cost.extend(k);
      for (size_t i = 1; i <= steps; ++i) {
        const long double v = value[(i - 1) * n + k] + c;
        if (v <= value[i * n + j] && v < kNone) {  // k falls: the smallest of equals stays
          value[i * n + j] = v;
          arg[i * n + j] = static_cast<uint32_t>(k);
        }
      }
    }
  }
  std::vector<uint32_t> path(steps + 1);
  auto at = static_cast<uint32_t>(n - 1);
  for (size_t i = steps; i > 0; --i) {
    path[i] = at;
    at = arg[i * n + at];
  }
  path[0] = at;
  return path;
}

}  // namespace

std::vector<uint32_t> reference_path(const std::vector<double>& x,
                                     const std::vector<double>& weight, Objective objective,
                                     int64_t levels) {
  const auto s = static_cast<size_t>(levels);
  return objective == Objective::stochastic ? solve<Interval>(x, weight, x.size(), s - 1)
                                            : solve<Cluster>(x, weight, x.size() + 1, s);
}

}  // namespace torchext::levels
