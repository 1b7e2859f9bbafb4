// Counts the values of columns in the bins of csrc/kernels/column_levels.h.
#pragma once

#include "kernels/column_levels.h"
#include "launch.h"

namespace torchext::cuda {

struct CountParams {
  const void* x;
  bool f64;
  int64_t row_stride, rows, cols;
  const cpu::HistogramMap* maps;  // of every 16 columns
  int64_t* counts;                // [2][cols][bins]: counts, sums of the low bits; added to
  int64_t bins;                   // those of maps, at most 4096
};

cudaError_t launch_count_columns(const CountParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
