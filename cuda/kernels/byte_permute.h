// Bytes of words in another order.
#pragma once

#include "launch.h"

namespace torchext::cuda {

/// Byte k of the result is byte s_k of the eight bytes b:a, s_k the low 3 bits of nibble k of
/// `selector`.
TX_DEVICE uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
#if defined(__CUDACC__)
  return __byte_perm(a, b, selector);
#else
  const uint64_t both = uint64_t{b} << 32 | a;
  uint32_t out = 0;
  for (int k = 0; k < 4; ++k)
    out |= static_cast<uint32_t>(both >> (8 * (selector >> (4 * k) & 7u)) & 255u) << (8 * k);
  return out;
#endif
}

/// out[c] byte k = in[k] byte c.
TX_DEVICE void turn(const uint32_t* in, uint32_t* out) {
  const uint32_t a = byte_permute(in[0], in[1], 0x5140), b = byte_permute(in[2], in[3], 0x5140);
  const uint32_t c = byte_permute(in[0], in[1], 0x7362), d = byte_permute(in[2], in[3], 0x7362);
  out[0] = byte_permute(a, b, 0x5410);
  out[1] = byte_permute(a, b, 0x7632);
  out[2] = byte_permute(c, d, 0x5410);
  out[3] = byte_permute(c, d, 0x7632);
}

}  // namespace torchext::cuda
