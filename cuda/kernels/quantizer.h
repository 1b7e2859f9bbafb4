// Launch functions of rounding to codes, back to values, and the round trip; needs no torch.
#pragma once

#include "formats.h"

namespace torchext::cuda {

/// Device memory: scales, tables and key are read by the kernel, never by the host.
struct QuantizerParams {
  DeviceFormat format;
  const void* x;     // of x_type
  FloatType x_type;  // of y, too, in the round trip
  uint8_t* codes;    // packed_bytes(n, bits); written ones are aligned to 16 bytes
  void* y;           // values; float32 where codes are decoded
  int64_t n;
  const uint64_t* key;  // seed, offset; stochastic rounding only
  uint32_t stream;
  bool stochastic;
};

/// codes of x. A value without a code (NaN under affine; NaN under levels if all codes are taken)
/// gets code 0; under levels code `level_count` if there is one, which decodes to NaN.
cudaError_t launch_quantize(const QuantizerParams& p, cudaStream_t stream) noexcept;

/// y = values of codes.
cudaError_t launch_dequantize(const QuantizerParams& p, cudaStream_t stream) noexcept;

/// y = values of the codes of x; NaN stays NaN.
cudaError_t launch_fake_quantize(const QuantizerParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
