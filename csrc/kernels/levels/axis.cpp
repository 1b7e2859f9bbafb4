#include "axis.h"

#include <algorithm>
#include <cmath>

namespace torchext::levels {

double round_centre(double mean, double lo, double hi) {
  if (!(hi > lo)) return lo;
  int exponent;
  std::frexp(hi - lo, &exponent);
  const double grid = std::ldexp(1.0, exponent - 10), rounded = std::nearbyint(mean / grid) * grid;
  return std::isfinite(rounded) ? std::min(std::max(rounded, lo), hi) : mean;
}

void Axis::bound_error(double terms) {
  largest_sum = 0;
  for (const Cut& c : cut) largest_sum = std::max(largest_sum, std::fabs(c.s.h));
  radius = std::max(std::fabs(lo.front() - centre), std::fabs(hi.back() - centre));
  const double squares = total() * radius * radius + 2 * radius * largest_sum + cut.back().q.h;
  // A sum of double-doubles is off by 3 2^-106 of itself per term, a term w t^2 by 2^-102.
  cut_error = (0x1p-100 + terms * 0x1p-104) * squares;
}

Axis mirror(const Axis& axis) {
  const size_t n = axis.size();
  Axis out = axis;
  out.centre = -axis.centre;
  const Cut& all = axis.cut.back();
  for (size_t i = 0; i < n; ++i) {
    out.lo[i] = -axis.hi[n - 1 - i];
    out.hi[i] = -axis.lo[n - 1 - i];
  }
  for (size_t i = 0; i <= n; ++i) {
    const Cut& c = axis.cut[n - i];
    out.cut[i] = {all.w - c.w, c.s - all.s, all.q - c.q};
  }
  out.largest_sum *= 2;  // the whole sum need not be 0
  return out;
}

void axis_of_sorted(const double* x, const double* weight, size_t n, Axis* axis) {
  // Plain sums in a fixed order: the centre need not be the mean, only near it.
  double sum = 0, total = 0, last = 0;
  axis->lo.resize(n);
  axis->cut.resize(n + 1);
  double* lo = axis->lo.data();
  Cut* cut = axis->cut.data();
  size_t m = 0, present = 0;  // absent values leave no trace, in the error bound neither
  for (size_t i = 0; i < n;) {
    const size_t first = i++;
    double w = 1;
    if (weight != nullptr) {
      w = weight[first];
      if (w == 0) continue;
    } else {
      while (i < n && x[i] == x[first]) ++i;
      w = static_cast<double>(i - first);
    }
    present += i - first;
    total += w;
    if (m > 0 && last == x[first]) {
      cut[m].w = cut[m].w + DD{w, 0};  // for now the weight of item m - 1
    } else {
      lo[m] = last = x[first];
      cut[++m].w = {w, 0};
    }
    sum += w * (last - lo[0]);
  }
  axis->lo.resize(m);
  axis->cut.resize(m + 1);
  axis->hi = axis->lo;
  axis->centre = m > 0 ? round_centre(lo[0] + sum / total, lo[0], lo[m - 1]) : 0.0;
  DD below;
  RunningSum sum_s, sum_q;
  for (size_t i = 0; i < m; ++i) {
    const DD w = cut[i + 1].w, t = axis->about(lo[i]);
    cut[i] = {below, sum_s.get(), sum_q.get()};
    const bool one = w.h == 1 && w.l == 0;
    const DD wt = one ? t : w * t;
    below = below.l == 0 && one ? DD{below.h + 1, 0} : below + w;
    sum_s.add(wt);
    sum_q.add(wt * t);
  }
  cut[m] = {below, sum_s.get(), sum_q.get()};
  if (m > 0) axis->bound_error(4 * static_cast<double>(present));
}

namespace {

DD stochastic_cost(const Axis& axis, uint32_t k, uint32_t j) {
  const DD a = axis.about(axis.lo[k]), b = axis.about(axis.lo[j]);
  const Cut &p = axis.cut[k], &q = axis.cut[j];  // the mass at k adds (b - a) (a - a) = 0
  return (a + b) * (q.s - p.s) - a * b * (q.w - p.w) - (q.q - p.q);
}

DD cluster_cost(const Axis& axis, uint32_t k, uint32_t j) {
  const Cut &p = axis.cut[k], &q = axis.cut[j];
  const DD s = q.s - p.s, w = q.w - p.w;
  return w.h > 0 ? (q.q - p.q) - s * s / w : DD{};
}

}  // namespace

double path_cost(const Axis& axis, Objective objective, const std::vector<uint32_t>& path,
                 bool* accurate) {
  DD cost;
  for (size_t i = 0; i + 1 < path.size(); ++i) {
    const DD c = objective == Objective::stochastic ? stochastic_cost(axis, path[i], path[i + 1])
                                                    : cluster_cost(axis, path[i], path[i + 1]);
    if (DD{} < c) cost = cost + c;
  }
  *accurate = axis.cut_error * static_cast<double>(path.size()) <= 0x1p-40 * cost.h;
  return cost.h;
}

double direct_cost(const double* x, const double* weight, size_t n, Objective objective,
                   const double* levels, size_t count) {
  const bool ends = objective == Objective::stochastic;
  double sum = 0, rest = 0;
  size_t i = 0;
  // Piece j holds the values between levels j - 1 and j; where all are nearer to one of two,
  // halves.
  for (size_t j = 0; j <= count; ++j) {
    const double below = levels[j > 0 ? j - 1 : 0], above = levels[j < count ? j : count - 1];
    const bool outside = j == 0 || j == count;
    for (; i < n && (j == count || x[i] < above); ++i) {
      const double w = weight != nullptr ? weight[i] : 1.0, a = x[i] - below, b = above - x[i];
      const double d = j > 0 && (j == count || a <= b) ? a : b;
      const double term = w * (ends && !outside ? a * b : d * d), next = sum + term;
      rest += sum >= term ? (sum - next) + term : (term - next) + sum;
      sum = next;
    }
  }
  return sum + rest;
}

}  // namespace torchext::levels
