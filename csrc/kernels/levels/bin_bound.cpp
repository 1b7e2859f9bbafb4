#include "bin_bound.h"

#include <algorithm>
#include <cmath>

#include "penalty.h"

namespace torchext::levels {

double bin_bound(const Axis& axis, double price, int64_t steps, const uint32_t* from,
                 int64_t* work) {
  const size_t n = axis.size(), stride = n + kTileRows;
  // Columns are ends above their bin's values, at its hi or lo; rows are ends below them.
  enum { hi_base, hi_t, hi_y, lo_base, lo_t, lo_y, hi_height, lo_height, kColumns };
  enum { lo_x = kColumns, lo_h, hi_x, hi_h, value, ready, unused, kPlanes };
  std::vector<double> memory(kPlanes * stride);
  const auto plane = [&](int k) { return memory.data() + static_cast<size_t>(k) * stride; };
  // A level that moves up by all of its bin is charged this, and no more than a share of the price:
  // then another level in the same bin never pays, and values grow but for what margin covers.
  const double most_rise = 0.125 * price;
  double steepest = 0;
  for (size_t i = 0; i < n; ++i) {
    const double lo = axis.about(axis.lo[i]).h, hi = axis.about(axis.hi[i]).h;
    const Cut &below = axis.cut[i], &above = axis.cut[i + 1];
    plane(hi_t)[i] = hi;
    plane(lo_t)[i] = lo;
    plane(hi_y)[i] = hi * above.w.h - above.s.h;
    plane(lo_y)[i] = lo * above.w.h - above.s.h;
    plane(lo_x)[i] = below.s.h - lo * below.w.h;
    plane(hi_x)[i] = below.s.h - hi * below.w.h;
    // dC/dv of the interval that ends here, from the lower end of the best bin before.
    const uint32_t k = from[i];
    const double slope =
        (below.s.h - axis.cut[k].s.h) - axis.about(axis.lo[k]).h * (below.w.h - axis.cut[k].w.h);
    const double rise = std::clamp(slope * (hi - lo), -most_rise, most_rise);
    steepest = std::max(steepest, std::fabs(rise));
    plane(hi_height)[i] = (above.q.h - hi * above.s.h) + rise;
    plane(lo_height)[i] = above.q.h - lo * above.s.h;
    plane(lo_h)[i] = lo * below.s.h - below.q.h;
    plane(hi_h)[i] = (hi * below.s.h - below.q.h) - rise;
  }
  std::fill_n(plane(ready), stride, static_cast<double>(stride));
  PricedSteps p{};
  const int columns[] = {hi_base, hi_t, hi_y, lo_base, lo_t, lo_y};
  const int rows[] = {lo_x, lo_t, lo_h, hi_x, hi_t, hi_h};
  for (int k = 0; k < 6; ++k) {
    p.columns.a[k] = plane(columns[k]);
    p.rows.a[k] = plane(rows[k]);
  }
  p.columns.count = p.rows.count = static_cast<int64_t>(n);
  p.rows.ready = p.rows.end = plane(ready);
  for (int k = 0; k < 2; ++k) {
    p.base[k] = plane(k == 0 ? hi_base : lo_base);
    p.height[k] = p.height_low[k] = plane(k == 0 ? hi_height : lo_height);
    p.base_low[k] = plane(unused);
  }
  p.value = plane(value);
  p.value_low = plane(unused);
  std::vector<uint32_t> arg(stride);
  p.arg = arg.data();
  p.price = price;
  const double most = most_steps(steps),
               scale = entry_scale(axis.cut.back(), axis.radius, axis.largest_sum) + steepest;
  const double error = priced_error(scale + most * price, false, axis);
  p.margin = (2 * most + 2) * error + 6 * steepest;
  if (!(p.margin < price)) return 0;
  *work += tile_kernels().priced_blocks(p);
  const double found = p.value[n - 1], longest = found / (price - 2 * steepest) + 2;
  if (!(longest <= most)) return 0;
  return found - price * static_cast<double>(steps) - 5 * longest * error;
}

}  // namespace torchext::levels
