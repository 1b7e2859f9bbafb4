// Values to codes in tile4 and the sums of the pass, without an anchor; csrc/kernels/encode.h has
// the rules.
#pragma once

#include "kernels/encode.h"
#include "kernels/layout.h"
#include "launch.h"

namespace torchext::cuda {

/// Rows and columns as in cpu::EncodeRows and cpu::EncodeOptions; all arrays on the GPU.
struct EncodeParams {
  const void* x;
  bool f64;
  int64_t row_stride, row0, rows, cols;
  const int64_t* position;  // null: row0, row0 + 1, ..
  const float* y;           // [rows, outputs]; null for no outputs
  const float* weight;      // null: 1
  int64_t outputs;
  int bits;
  Planes planes;  // of bits
  cpu::EncodeMode mode;
  const uint64_t* key;  // of the user
  uint32_t copy;
  const double *mean, *scale;
  const float* grid;    // [cols, 2]: lo, step; used if levels is null
  const float* levels;  // [cols, count]
  int64_t count;
  const float* bounds;  // [cols, 2] or null
  uint8_t* codes;
  double* chunk_sums;    // [chunks][kMoments + kOutputSums * outputs][cols]
  double* chunk_totals;  // [chunks][outputs + 1]
  double *sums, *totals;
  int64_t* clipped;
};

cudaError_t launch_encode(const EncodeParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
