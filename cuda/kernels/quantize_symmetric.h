// Launch function of the symmetric stochastic quantizer; needs the CUDA runtime, no torch.
#pragma once

#include "launch.h"

namespace torchext::cuda {

/// codes = packed(q + Q), q = clamp(floor(t) + [u < t - floor(t)], -Q, Q), t = x * (1/scale).
struct QuantizeSymmetricParams {
  const float* x;
  uint8_t* codes;       // packed_bytes(n, bits) bytes
  const float* scale;   // device memory, one value: no host sync
  const uint64_t* key;  // device memory: seed, offset
  int64_t n;
  uint32_t stream;
};

/// Quantizes p.n values to p.codes at 2 to 8 bits on `stream`; cudaErrorInvalidValue for other
/// widths.
cudaError_t launch_quantize_symmetric(const QuantizeSymmetricParams& p, int bits,
                                      cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
