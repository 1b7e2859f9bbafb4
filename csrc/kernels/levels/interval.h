// What an interval between two levels costs, from sums below its ends; the CPU and CUDA share it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "dd.h"

namespace torchext::levels {

enum class Objective : int { stochastic = 0, nearest = 1 };

/// Sums of w, w t and w t^2 over all values below a position; t = value - centre.
struct Cut {
  DD w, s, q;
};

/// The mean rounded to ten significant bits of the range: data with few bits keep exact sums.
TX_HD double round_centre(double mean, double lo, double hi) {
  if (!(hi > lo)) return lo;
  int exponent;
  std::frexp(hi - lo, &exponent);
  const double grid = std::ldexp(1.0, exponent - 10), rounded = std::nearbyint(mean / grid) * grid;
  if (!(std::fabs(rounded) < HUGE_VAL)) return mean;
  return rounded < lo ? lo : rounded > hi ? hi : rounded;
}

/// Bound on what the errors of the sums add to the cost of an interval. `all` are the sums of
/// everything, `terms` the number of terms in the longest sum.
TX_HD double error_of_cuts(const Cut& all, double radius, double largest_sum, double terms) {
  const double squares = all.w.h * radius * radius + 2 * radius * largest_sum + all.q.h;
  // A sum of double-doubles is off by 3 2^-106 of itself per term, a term w t^2 by 2^-102.
  return (0x1p-100 + terms * 0x1p-104) * squares;
}

/// Cost of the interval between levels a and b (about the centre) whose sums below are p and q: the
/// mass at a adds (b - a) (a - a) = 0.
TX_HD DD interval_cost(DD a, DD b, const Cut& p, const Cut& q) {
  return (a + b) * (q.s - p.s) - a * b * (q.w - p.w) - (q.q - p.q);
}

/// Squared distances to their mean of the values between two positions whose sums below are p and
/// q.
TX_HD DD cluster_cost(const Cut& p, const Cut& q) {
  const DD s = q.s - p.s, w = q.w - p.w;
  return w.h > 0 ? (q.q - p.q) - s * s / w : DD{};
}

/// Their mean, which is among them whatever rounding does: they lie from lo to hi.
TX_HD double cluster_mean(const Cut& p, const Cut& q, double centre, double lo, double hi) {
  const DD mean = (q.s - p.s) / (q.w - p.w) + DD{centre, 0};
  return mean.h < lo ? lo : hi < mean.h ? hi : mean.h;
}

/// Whether the cost of a path of so many levels is good to 2^-40 relative.
TX_HD bool is_accurate(double cost, double cut_error, double levels) {
  return cut_error * levels <= 0x1p-40 * cost;
}

/// A bound on what the magnitudes in an entry of the programme add up to: levels no further than
/// `reach` from the centre, sums below them no larger than `largest_sum`; `all` lie below the last.
TX_HD double entry_scale(const Cut& all, double reach, double largest_sum) {
  return 2 * (all.q.h + reach * largest_sum) + 2 * reach * (largest_sum + reach * all.w.h);
}

/// The same for clusters. (S_r - S_c)^2 / (W_r - W_c) is no more than the squares between, but
/// carries the rounding of both sums; `squares`: the largest Q.
TX_HD double cluster_scale(double squares, double weight, double radius, double largest_sum) {
  return 2 * squares + 2 * radius * largest_sum + radius * radius * weight;
}

/// A proved lower bound beside the cost. One figure for all that is certified, so that the way to
/// the proof leaves no trace.
struct Bound {
  double lower;
  bool certified;
};
TX_HD Bound settled(double cost, double proved) {
  const double close = cost * (1 - 0x1p-30);
  double lower = proved > 0 ? proved : 0.0;
  lower = lower < cost ? lower : cost;
  return lower >= close ? Bound{close, true} : Bound{lower, false};
}

/// Means of the cells [path[k], path[k + 1]) of ascending x, of which there are `cells`, to
/// `means`, each about its own first value: for data whose sums cancel. Cells without weight have
/// none; returns how many do.
template <class Index>
TX_HD size_t direct_means(const double* x, const double* weight, const Index* path, size_t cells,
                          double* means) {
  size_t count = 0;
  for (size_t k = 0; k < cells; ++k) {
    if (path[k] == path[k + 1]) continue;
    const double first = x[path[k]], last = x[path[k + 1] - 1];
    double total = 0, sum = 0;
    for (Index i = path[k]; i < path[k + 1]; ++i) {
      total += weight[i];
      sum += weight[i] * (x[i] - first);
    }
    if (!(total > 0)) continue;
    const double mean = first + sum / total;
    means[count++] = mean < first ? first : last < mean ? last : mean;
  }
  return count;
}

/// Cost of ascending `levels` [count] over ascending x [n], summed term by term with compensation:
/// good to about 10^-15 for any data. Values beyond the levels count their squared distance.
TX_HD double direct_cost(const double* x, const double* weight, size_t n, Objective objective,
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
