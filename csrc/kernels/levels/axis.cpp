#include "axis.h"

#include <algorithm>
#include <cmath>

#include "centred.h"
#include "running_pair.h"

namespace torchext::levels {

void Axis::bound_error(double terms) {
  largest_sum = 0;
  for (const Cut& c : cut) largest_sum = std::max(largest_sum, std::fabs(c.s.h));
  radius = std::max(std::fabs(lo.front() - centre), std::fabs(hi.back() - centre));
  cut_error = error_of_cuts(cut.back(), radius, largest_sum, terms);
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
  RunningPair sums;  // of w t and w t^2
  Centred c;
  for (size_t i = 0; i < m; ++i) {
    const size_t k = i % kCentredBlock;
    if (k == 0) centred()(lo + i, std::min(kCentredBlock, m - i), axis->centre, &c);
    const DD w = cut[i + 1].w, t{c.t[0][k], c.t[1][k]}, square{c.square[0][k], c.square[1][k]};
    cut[i].w = below;
    sums.get(&cut[i].s, &cut[i].q);
    const bool one = w.h == 1 && w.l == 0;
    below = below.l == 0 && one ? DD{below.h + 1, 0} : below + w;
    const DD wt = one ? t : w * t;
    sums.add(wt, one ? square : wt * t);
  }
  cut[m].w = below;
  sums.get(&cut[m].s, &cut[m].q);
  if (m > 0) axis->bound_error(4 * static_cast<double>(present));
}

double path_cost(const Axis& axis, Objective objective, const std::vector<uint32_t>& path,
                 bool* accurate) {
  DD cost;
  for (size_t i = 0; i + 1 < path.size(); ++i) {
    const uint32_t k = path[i], j = path[i + 1];
    const Cut &p = axis.cut[k], &q = axis.cut[j];
    const DD c = objective == Objective::stochastic
                     ? interval_cost(axis.about(axis.lo[k]), axis.about(axis.lo[j]), p, q)
                     : cluster_cost(p, q);
    if (DD{} < c) cost = cost + c;
  }
  *accurate = is_accurate(cost.h, axis.cut_error, static_cast<double>(path.size()));
  return cost.h;
}

}  // namespace torchext::levels
