// Errors of rounding to levels, reference: the definition, a value at a time.
#include "../../levels/error.h"

namespace torchext::levels {

void add_errors_ref(const WeightedValues& v, const LevelTable& table, bool stochastic,
                    int64_t begin, int64_t end, Errors* out) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const double w = v.weight != nullptr ? v.weight[i] * v.weight_scale : 1.0;
    double x = (v.x64 != nullptr ? v.x64[i] : static_cast<double>(v.x32[i])) * v.scale;
    if (w == 0) x = table.level[0];  // absent; the square of what stands there may be infinite
    int64_t at = 0;
    for (int64_t step = table.width / 2; step > 0; step /= 2)
      if (table.rung[at + step] <= x) at += step;
    const double below = x - table.level[at], above = table.level[at + 1] - x;
    const double nearer = below < above ? below : above;  // negative beyond the table
    if (nearer < 0) out->clipped += w > 0;
    if (stochastic && nearer >= 0) {
      add_term(&out->variance, w * (below * above));
    } else {
      add_term(&out->bias2, w * (nearer * nearer));
    }
  }
}

}  // namespace torchext::levels
