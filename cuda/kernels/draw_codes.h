// Launch functions of several draws per value in one code; needs no torch.
#pragma once

#include "formats.h"
#include "kernels/draws.h"

namespace torchext::cuda {

/// Device memory throughout. A code holds the interval in its low `base_bits`, above it one bit a
/// draw (form bits) or the number of upward draws (form count).
struct DrawCodesParams {
  DeviceFormat format;  // scheme levels, without scale; bits: of a code, 0 where nothing is packed
  const void* x;
  FloatType x_type;
  uint8_t* codes;    // packed_bytes(n, bits); written ones are aligned to 16 bytes
  uint8_t* ternary;  // form ternary: counts, five a byte
  uint8_t* counts;   // [n] of form ternary while encoding, aligned to 16 bytes
  float* y;          // values of one draw, where codes are decoded
  int64_t n;
  const uint64_t* key;
  uint32_t stream;
  DrawForm form;
  int draws, base_bits;
  int draw;  // which one is decoded
};

/// codes of x; NaN, which the CPU refuses, gets the code of the lowest level in every draw.
cudaError_t launch_quantize_draws(const DrawCodesParams& p, cudaStream_t stream) noexcept;

/// y = draw number p.draw of the codes.
cudaError_t launch_dequantize_draws(const DrawCodesParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
