// One epoch of mini-batch SGD on CUDA: csrc/kernels/linear/epoch.h, bit for bit.
//
// A step of the integer path is two launches. The first rounds the model, forms the integer dots,
// and whichever block completes a piece of 256 rows turns them into residuals. The second rounds
// the residuals, forms the integer column sums, and whichever block completes 64 columns updates
// them; the last of all adds up what the next step and the losses need. Integers add up in any
// order, floats in the order of the CPU. The float32 path has a launch for each of its parts.
#pragma once

#include "../launch.h"
#include "kernels/linear/epoch.h"

namespace torchext::cuda {

/// Parameters and working memory of a step. Sizes: m outputs, np columns padded to 64, batch_rows
/// rows of a batch padded to 64.
struct EpochStep {
  // The problem, as in cpu::Epoch; all pointers to device memory.
  int64_t rows, cols, np, batch, batch_rows;
  int outputs, planes, books;
  const float *grid, *y, *weight, *z0;
  float *x, *intercept;
  const float *x0, *constant, *shrink;
  int64_t x0_cols, constant_cols;
  double* average;  // [m, cols + 1] or null
  const int64_t* order;
  const double* gamma;
  const uint64_t* key;
  int64_t steps, step;  // step: of this launch; -1 before the first
  uint32_t first_step;
  bool logistic, variance_reduced, fit_intercept, values;  // values: the float32 path
  float l1, l2;
  int model_bits, residual_bits, gradient_bits;
  // Between launches.
  float *w, *beta_lanes, *beta;       // [m, np], [m, np/64, 16], [m]
  float* model_scale;                 // [m]
  int32_t *w_peak, *e_peak, *g_peak;  // [m], bits of the largest magnitude
  float *e, *loss;                    // [m, books, batch_rows]; loss: the float32 path
  float* lanes;               // [m, books, pieces, 32]: losses and squares of a piece of rows
  int32_t* eq_sum;            // [np/64, m] of the residuals' integers
  int32_t* eq_total;          // [m]
  float* gradient;            // [m, np], where it is rounded or the path is float32
  double *iterates, *totals;  // [m, np], [segments, m, 32]
  double* counted;            // [m] rows
  uint32_t *piece_done, *columns_done, *all_done;  // [m, pieces], [m, np/64], [m]
  double* sums;                                    // [3, m], the result
  // The float32 path.
  const float* dense;  // [rows, pitch] of the data, or of the batch if `decoded`
  bool decoded;
  int64_t pitch, segment_rows;
  float *rounded, *partial;  // [m, np], [4, m, np]
  float* segment_sum;        // [4, m, 16]
};

constexpr int kSegments = 4;  // of a batch, in the float32 path

/// What an epoch reads of the data set.
struct EpochData {
  const uint8_t* codes;  // tile4, aligned to 16 bytes; null: step.dense
  const uint8_t* table;  // aligned to 16 bytes, or null
  int bits;
};

/// Bytes of working memory of an epoch; of `step` only the problem has to be filled in.
size_t epoch_workspace(const EpochData& data, const EpochStep& step) noexcept;

/// Enqueues all steps of an epoch. workspace: epoch_workspace() bytes, aligned to 16.
cudaError_t launch_epoch(const EpochData& data, EpochStep step, void* workspace,
                         cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
