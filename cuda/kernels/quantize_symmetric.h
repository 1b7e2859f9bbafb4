// Launch function of the symmetric stochastic quantizer; needs the CUDA runtime, no torch.
#pragma once

#include <cuda_runtime.h>

#include "quantize_symmetric.cuh"

namespace torchext::cuda {

/// Quantizes p.n values to p.codes at 2 to 8 bits on `stream`; cudaErrorInvalidValue for other
/// widths.
cudaError_t launch_quantize_symmetric(const QuantizeSymmetricParams& p, int bits,
                                      cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
