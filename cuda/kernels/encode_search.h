// Where a scaled value lies among the levels of its column: the thresholds of
// csrc/kernels/cpu/encode_plan.cpp, computed as they are needed.
#pragma once

#include <cmath>

#include "encode_columns.h"

namespace torchext::cuda {

struct EncodeCell {
  float lower, upper;
  int32_t index;  // of the lower level; of the level itself where `rounded`
};

class ColumnSearch {
 public:
  TX_DEVICE ColumnSearch(const EncodeParams& p, int64_t col)
      : nearest_(p.mode == cpu::EncodeMode::nearest), mean_(p.mean[col]), scale_(p.scale[col]) {
    // As on the CPU, which decides by the search whether ties at adjacent floats see the exact
    // rule.
    table_ = p.levels != nullptr || p.count <= 16;
    levels_ = p.levels != nullptr ? p.levels + col * p.count : nullptr;
    lo_ = p.grid[2 * col];
    step_ = p.grid[2 * col + 1];
    last_ = static_cast<int32_t>(p.count - 1);
    if (table_) {
      while (last_ > 0 && !(level(last_) > level(last_ - 1))) --last_;
    } else if (!(step_ >= 0x1p-126f)) {
      last_ = 0;
      step_ = 0.0f;
    }
  }

  TX_DEVICE bool rounded() const { return nearest_ && table_; }
  TX_DEVICE double mean() const { return mean_; }
  TX_DEVICE double scale() const { return scale_; }

  /// The number of thresholds below a, and the levels around it.
  TX_DEVICE EncodeCell find(float a) const {
    const bool round = rounded();
    int32_t low = 0, high = round ? last_ : last_ > 0 ? last_ - 1 : 0;
    while (low < high) {
      const int32_t middle = (low + high + 1) / 2;
      const bool above = round ? a > midpoint(middle) : a >= level(middle);
      low = above ? middle : low;
      high = above ? high : middle - 1;
    }
    return {level(low), level(low < last_ ? low + 1 : low), low};
  }

 private:
  TX_DEVICE float level(int32_t c) const {
    if (levels_ != nullptr) return levels_[c];
    const float offset = step_ * static_cast<float>(c);
    return lo_ + offset;
  }
  /// Values above it belong to level c rather than to the one below.
  TX_DEVICE float midpoint(int32_t c) const {
    const float upper = level(c), middle = (level(c - 1) + upper) / 2.0f;
    const float before = nextafterf(upper, -INFINITY);  // adjacent floats round their middle up
    return before < middle ? before : middle;
  }

  bool nearest_, table_;
  double mean_, scale_;
  const float* levels_;
  float lo_, step_;
  int32_t last_;
};

}  // namespace torchext::cuda
