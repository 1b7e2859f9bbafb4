// Rows as the encoder sees them: fl32((x - mean) / scale), computed in double.
#pragma once

#include <cstdint>

namespace torchext::cpu {

struct ScaleRows {
  const void* x;
  bool f64;
  int64_t row_stride;    // elements
  const int64_t* index;  // rows of x to take; null: all in order
  int64_t cols;
  const double *mean, *scale;  // [cols]
  float* out;                  // [rows, cols]
};

/// Fills rows [begin, end) of out; bound by the division unit, which wider registers do not speed
/// up.
void scale_rows_ref(const ScaleRows& p, int64_t begin, int64_t end) noexcept;

}  // namespace torchext::cpu
