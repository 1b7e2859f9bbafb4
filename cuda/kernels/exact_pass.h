// Launch function of the exact pass over full-precision rows; needs the CUDA runtime, no torch.
#pragma once

#include "kernels/linear/exact_pass.h"
#include "launch.h"

namespace torchext::cuda {

/// The pass of csrc/kernels/linear/exact_pass.h, its arrays in device memory, its sums in the same
/// order. A class number outside [0, outputs) makes the loss and the slopes of its row NaN.
struct ExactPassParams {
  cpu::ExactPass pass;
  int64_t rows;
  double *gradient, *total;  // [outputs, cols + 1] and [1], added to
  double* workspace;         // exact_pass_workspace() doubles
};

/// Doubles of scratch memory: scores and losses of a slab of rows, and sums of its chunks.
int64_t exact_pass_workspace(int64_t rows, int64_t cols, int outputs) noexcept;

cudaError_t launch_exact_pass(const ExactPassParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
