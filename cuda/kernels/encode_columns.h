// Values to codes in tile4 and the sums of the pass; csrc/kernels/encode.h has the rules.
#pragma once

#include "kernels/anchor_loss.h"
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
  const float* bounds;     // [cols, 2] or null
  const float* x0;         // [outputs, cols], the anchor; may be null
  const float* intercept;  // [outputs] or null
  cpu::AnchorLoss loss;
  double* slopes;  // [outputs][kSlopes][rows], of the anchor
  uint8_t* codes;
  double* chunk_sums;    // [chunks][kMoments + kOutputSums * outputs][cols]
  double* chunk_totals;  // [chunks][encode_totals]
  double *sums, *totals;
  int64_t* clipped;
};

/// What a row has of an output: weighted slopes that multiply a, q and q2, and its loss.
enum RowSlope : int {
  kExactSlope = 0,
  kFirstSlope = 1,
  kSecondSlope = 2,
  kRowLoss = 3,
  kSlopes = 4
};

/// Totals that are written: of targets and weights, with an anchor of losses and slopes too.
TX_HD int64_t encode_totals(const EncodeParams& p) {
  return (p.x0 != nullptr ? 4 : 1) * (p.outputs + 1);
}

/// The slopes at the anchor, and their sums into chunk_sums, which launch_encode has begun.
cudaError_t launch_anchor(const EncodeParams& p, cudaStream_t stream) noexcept;

cudaError_t launch_encode(const EncodeParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
