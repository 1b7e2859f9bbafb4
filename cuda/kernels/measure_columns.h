// Sums, ranges and the first value that is not finite of every column; csrc/kernels/column_stats.h
// has the order of the sums.
#pragma once

#include "kernels/column_stats.h"
#include "launch.h"

namespace torchext::cuda {

constexpr int kStatsParts = 4;  // of a chunk: sum, least, greatest, weighted sum

struct MeasureParams {
  const void* x;
  bool f64;
  int64_t row_stride, rows, cols;
  cpu::Weighing weighing;
  double* parts;   // [chunks][kStatsParts][cols]
  double* state;   // [5][cols]: count, sum, minimum, maximum, weighted sum; added to
  int64_t* found;  // position of the first NaN or infinity, row-major, or -1
};

cudaError_t launch_measure_columns(const MeasureParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
