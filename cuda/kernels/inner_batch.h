// Inner epochs of HALP and SVRG over mini-batches; see inner_loop.h.
#pragma once

#include "inner_loop.h"

namespace torchext::cuda {

int64_t halp_batch_scratch(const cpu::HalpEpoch& e) noexcept;
cudaError_t launch_halp_batch(const HalpParams& p, cudaStream_t stream) noexcept;

int64_t svrg_batch_scratch(const cpu::SvrgEpoch& e) noexcept;
cudaError_t launch_svrg_batch(const SvrgParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
