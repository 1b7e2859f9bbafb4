#include <cmath>
#include <cstring>

#include "kernels/column_levels.h"

namespace torchext::cpu {

void histogram_ref(const Sample& sample, int64_t begin, int64_t end, int64_t col, int64_t cols,
                   const HistogramMap& map, uint64_t* bins) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = sample.index != nullptr ? sample.index[i] : i;
    for (int64_t j = 0; j < cols; ++j) {
      const int64_t at = row * sample.row_stride + col + j;
      const double x = sample.f64 ? static_cast<const double*>(sample.x)[at]
                                  : static_cast<const float*>(sample.x)[at];
      const auto a = static_cast<float>((x - map.mean[j]) * map.inverse[j]);
      const float away = a - map.center[j], t = std::fabs(away) + map.c[j];
      uint32_t word;
      std::memcpy(&word, &t, sizeof word);
      const uint32_t key = (word >> map.shift[j]) - map.base[j];
      const uint32_t room = away < 0.0f ? map.under[j] : map.over[j];
      const uint32_t step = key < room ? key : room;
      const uint32_t bin = away < 0.0f ? map.under[j] - step : map.origin[j] + step;
      bins[j * map.bins + bin] += (uint64_t{1} << 40) + (word & map.rest[j]);
    }
  }
}

}  // namespace torchext::cpu
