#include "adaquant.h"

#include <algorithm>
#include <cmath>

namespace torchext::levels {

std::vector<uint32_t> merge_intervals(const Axis& axis, int64_t levels) {
  const auto keep = static_cast<size_t>(2 * (levels - 1));
  std::vector<uint32_t> ends(axis.size()), next;
  for (size_t i = 0; i < ends.size(); ++i) ends[i] = static_cast<uint32_t>(i);
  std::vector<double> cost, order;
  while (ends.size() - 1 > 2 * keep) {
    const size_t intervals = ends.size() - 1, pairs = intervals / 2;
    cost.resize(pairs);
    for (size_t p = 0; p < pairs; ++p) {
      const uint32_t k = ends[2 * p], j = ends[2 * p + 2];
      const Cut &a = axis.cut[k], &b = axis.cut[j];
      const double l = axis.about(axis.lo[k]).h, r = axis.about(axis.lo[j]).h;
      cost[p] = (l + r) * (b.s - a.s).h - l * r * (b.w - a.w).h - (b.q - a.q).h;
    }
    if (pairs <= keep) break;  // an odd interval is left over: nothing to merge
    order = cost;
    const auto nth = order.begin() + static_cast<std::ptrdiff_t>(pairs - keep);
    std::nth_element(order.begin(), nth, order.end());
    const double least = *nth;  // the smallest cost that is kept apart; of equals the first ones
    size_t equal = keep - static_cast<size_t>(std::count_if(order.begin(), order.end(),
                                                            [&](double c) { return c > least; }));
    next.assign(1, ends[0]);
    for (size_t p = 0; p < pairs; ++p) {
      const bool apart = cost[p] > least || (cost[p] == least && equal > 0);
      if (cost[p] == least && equal > 0) --equal;
      if (apart) next.push_back(ends[2 * p + 1]);
      next.push_back(ends[2 * p + 2]);
    }
    if (intervals % 2 != 0) next.push_back(ends.back());
    ends.swap(next);
  }
  return ends;
}

}  // namespace torchext::levels
