// Stochastic rounding of float32 to packed symmetric codes on CUDA.
//
// The rounding rule, the packing order and the random stream are those of the CPU kernels
// (csrc/kernels/rounding.h, pack.h, philox.h): the same key gives the same bytes.
#pragma once

#include <cstdint>

#include "kernels/pack.h"
#include "kernels/philox.h"
#include "kernels/rounding.h"

namespace torchext::cuda {

/// Codes of the elements 4*block .. 4*block+3, b bits each, the first lowest.
template <int kBits>
TX_HD uint32_t quantize_symmetric_four(const float* x, int count, float inverse, Key key,
                                       uint64_t block, uint32_t stream) {
  constexpr int32_t kMax = (1 << (kBits - 1)) - 1;
  const Words r = draw4(key, block, stream, 0);
  uint32_t four = 0;
  for (int k = 0; k < 4; ++k) {
    if (k < count) {
      const auto code =
          static_cast<uint32_t>(symmetric_stochastic(x[k], inverse, kMax, unit(r.w[k])));
      four |= code << (k * kBits);
    }
  }
  return four;
}

/// One full turn of a thread: 32 elements to kBits words.
template <int kBits>
TX_HD void quantize_symmetric_unit(const float* x, float inverse, Key key, uint64_t block,
                                   uint32_t stream, uint32_t* words) {
  uint64_t held = 0;
  int filled = 0, out = 0;
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int group = 0; group < 8; ++group) {
    held |= static_cast<uint64_t>(quantize_symmetric_four<kBits>(
                x + 4 * group, 4, inverse, key, block + static_cast<uint64_t>(group), stream))
            << filled;
    filled += 4 * kBits;
    if (filled >= 32) {
      words[out++] = static_cast<uint32_t>(held);
      held >>= 32;
      filled -= 32;
    }
  }
}

/// The ragged end: count < 32 elements, byte by byte.
template <int kBits>
TX_HD void quantize_symmetric_tail(const float* x, int count, float inverse, Key key,
                                   uint64_t block, uint32_t stream, uint8_t* codes) {
  uint64_t held = 0;
  int filled = 0;
  for (int i = 0; i < count; i += 4) {
    const int some = count - i < 4 ? count - i : 4;
    held |= static_cast<uint64_t>(quantize_symmetric_four<kBits>(
                x + i, some, inverse, key, block + static_cast<uint64_t>(i / 4), stream))
            << filled;
    for (filled += some * kBits; filled >= 8; filled -= 8) {
      *codes++ = static_cast<uint8_t>(held);
      held >>= 8;
    }
  }
  if (filled > 0) *codes = static_cast<uint8_t>(held);
}

}  // namespace torchext::cuda
