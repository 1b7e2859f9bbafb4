// Launch function of the loss terms of a line search; needs the CUDA runtime, no torch.
#pragma once

#include "kernels/linear/loss_terms.h"
#include "launch.h"

namespace torchext::cuda {

/// The terms of csrc/kernels/linear/loss_terms.h, arrays in device memory, to the same bits. A
/// class number outside [0, outputs) is no class: no output of its row is the right one.
struct LossTermsParams {
  cpu::LossTerms terms;
  double* parts;  // [chunks of kTermRows rows, outputs, kTermSums]: scratch memory
  double* sums;   // [outputs, kTermSums]
};

cudaError_t launch_loss_terms(const LossTermsParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
