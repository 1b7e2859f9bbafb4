// Launch functions of packing and unpacking codes; needs no torch.
#pragma once

#include <cstdint>

#include "launch.h"

namespace torchext::cuda {

struct BitStreamParams {
  uint8_t* codes;   // one a byte
  uint8_t* packed;  // packed_bytes(n, bits); a written one is aligned to 16 bytes
  int64_t n;
  int bits;  // 1..8
};

/// packed from codes, of which the low `bits` count.
cudaError_t launch_pack(const BitStreamParams& p, cudaStream_t stream) noexcept;

/// codes from packed.
cudaError_t launch_unpack(const BitStreamParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
