#include "row_minima.h"

#include <algorithm>

namespace torchext::levels {

int64_t row_minima(TileFn* tile, const TileColumns& columns, int64_t column_count,
                   const TileRows& rows, int64_t count, const uint32_t* floor,
                   const RowMinima& out) noexcept {
  int64_t top = 1, work = 0;
  while (top * kTileRows < count) top *= kTileRows;
  TileMinima found;
  for (int64_t stride = top; stride >= 1; stride /= kTileRows) {
    const int64_t reach = stride * kTileRows;
    for (int64_t base = 0; base < count; base += reach) {
      // Row base + reach - 1, if there is one, was solved in the pass before.
      const int64_t first = base + stride - 1, known = base + reach - 1;
      const bool bounded = stride != top && known < count;
      const int64_t most = stride == top ? kTileRows : kTileRows - 1;
      const int64_t some = std::min(most, first < count ? (count - 1 - first) / stride + 1 : 0);
      if (some == 0) continue;
      int64_t c0 = base > 0 ? out.arg[base - 1] : 0;
      if (floor != nullptr) c0 = std::max<int64_t>(c0, floor[first]);
      const auto last = static_cast<int64_t>(rows.end[first + (some - 1) * stride]);
      const int64_t c1 = std::min(bounded ? int64_t{out.arg[known]} + 1 : column_count, last);
      tile(columns, rows, first, stride, some, c0, std::max(c0, c1), &found);
      work += kTileRows * std::max<int64_t>(0, c1 - c0);
      for (int64_t k = 0; k < some; ++k) {
        const int64_t r = first + k * stride;
        out.value[r] = std::min(found.value[k], kUnreachable);
        out.low[r] = found.low[k];
        out.arg[r] = static_cast<uint32_t>(found.column[k]);
      }
    }
  }
  return work;
}

double row_minima_noise(int64_t rows) noexcept {
  int passes = 1;
  for (int64_t reach = kTileRows; reach < rows; reach *= kTileRows) ++passes;
  return 2 * passes + 1;
}

}  // namespace torchext::levels
