// Launches that make up an epoch, beside the two tile products.
#pragma once

#include "sgd_epoch.h"

namespace torchext::cuda {

/// Prepares the first step (p.step = -1).
cudaError_t launch_begin(const EpochStep& p, cudaStream_t stream) noexcept;
/// Updates along p.gradient.
cudaError_t launch_follow(const EpochStep& p, cudaStream_t stream) noexcept;
/// Average and sums, after the last step.
cudaError_t launch_finish(const EpochStep& p, cudaStream_t stream) noexcept;
/// One step of the float32 path up to p.gradient.
cudaError_t launch_float_gradient(const EpochStep& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
