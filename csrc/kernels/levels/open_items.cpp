#include "open_items.h"

#include <algorithm>

namespace torchext::levels {

std::vector<uint32_t> open_items(const Axis& axis, const Bins& bins,
                                 const std::vector<uint32_t>& items,
                                 const std::vector<uint32_t>& live, Axis* opened) {
  std::vector<double> values;
  std::vector<size_t> start;
  bins.members(items, &values, &start);
  opened->centre = axis.centre;
  opened->radius = axis.radius;
  opened->largest_sum = axis.largest_sum;
  opened->cut_error = axis.cut_error;
  std::vector<uint32_t> first(axis.size() + 1);
  const auto push = [&](double lo, double hi, const Cut& below) {
    opened->lo.push_back(lo);
    opened->hi.push_back(hi);
    opened->cut.push_back(below);
  };
  size_t next = 0, alive = 0;
  bool dead = false;
  double longest = 0;
  for (uint32_t i = 0; i < axis.size(); ++i) {
    const bool is_live = alive < live.size() && live[alive] == i;
    alive += is_live;
    if (next < items.size() && items[next] == i) {
      first[i] = static_cast<uint32_t>(opened->size());
      Cut at = axis.cut[i];
      longest = std::max(longest, static_cast<double>(start[next + 1] - start[next]));
      for (size_t k = start[next]; k < start[next + 1];) {
        size_t same = k + 1;
        while (same < start[next + 1] && values[same] == values[k]) ++same;
        // A value that two bins share is one item.
        if (opened->lo.empty() || dead || opened->lo.back() != values[k]) {
          push(values[k], values[k], at);
        } else if (k == start[next]) {
          --first[i];
        }
        dead = false;
        const DD t = axis.about(values[k]), wt = DD{static_cast<double>(same - k), 0} * t;
        at = {at.w + DD{static_cast<double>(same - k), 0}, at.s + wt, at.q + wt * t};
        k = same;
      }
      ++next;
    } else if (axis.single(i) && !dead && !opened->lo.empty() && opened->lo.back() == axis.lo[i]) {
      first[i] = static_cast<uint32_t>(opened->size() - 1);
    } else if (is_live || axis.single(i) || !dead) {
      first[i] = static_cast<uint32_t>(opened->size());
      push(axis.lo[i], axis.hi[i], axis.cut[i]);
      dead = !is_live;
    } else {
      first[i] = static_cast<uint32_t>(opened->size() - 1);
      opened->hi.back() = axis.hi[i];
    }
  }
  first[axis.size()] = static_cast<uint32_t>(opened->size());
  opened->cut.push_back(axis.cut.back());
  opened->cut_error *= 1 + longest * 0x1p-6;  // terms added here
  return first;
}

}  // namespace torchext::levels
