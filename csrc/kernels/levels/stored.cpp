#include "stored.h"

#include <algorithm>
#include <cmath>

namespace torchext::levels {

bool store_levels(const StoredFormat& format, bool outward, int64_t most,
                  std::vector<double>* levels, bool* changed) {
  *changed = false;
  if (format.bits == kFloat64.bits) return true;
  const double largest = std::ldexp(2 - std::ldexp(1, 1 - format.bits), format.largest);
  // A single level that the format lacks lies between two that it has.
  if (outward && levels->size() == 1 && most > 1) levels->push_back(levels->front());
  std::vector<double> stored;
  for (size_t i = 0; i < levels->size(); ++i) {
    const double x = (*levels)[i];
    const int exponent = x == 0 ? format.smallest : std::max(std::ilogb(x), format.smallest);
    const double t = std::ldexp(x, format.bits - 1 - exponent);  // in units in the last place
    const bool ends = outward && levels->size() > 1;
    const double rounded = ends && i == 0                    ? std::floor(t)
                           : ends && i + 1 == levels->size() ? std::ceil(t)
                                                             : std::nearbyint(t);
    const double y = std::ldexp(rounded, exponent + 1 - format.bits) + 0.0;
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
