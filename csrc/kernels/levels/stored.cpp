#include "stored.h"

#include <cmath>

namespace torchext::levels {

bool store_levels(const StoredFormat& format, bool outward, int64_t most,
                  std::vector<double>* levels, bool* changed) {
  *changed = false;
  if (format.bits == kFloat64.bits) return true;
  const double largest = largest_number(format);
  // A single level that the format lacks lies between two that it has.
  if (outward && levels->size() == 1 && most > 1) levels->push_back(levels->front());
  std::vector<double> stored;
  const auto count = static_cast<int64_t>(levels->size());
  for (int64_t i = 0; i < count; ++i) {
    const double x = (*levels)[static_cast<size_t>(i)];
    const double y = stored_level(format, x, direction(outward, i, count));
    if (std::fabs(y) > largest) {
      levels->assign(1, x);
      return false;
    }
    *changed = *changed || y != x;
    if (stored.empty() || y > stored.back()) stored.push_back(y);
  }
  levels->swap(stored);
  return true;
}

}  // namespace torchext::levels
