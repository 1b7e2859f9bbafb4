// Packed codes: a little-endian bit stream, code i at bits i*b .. i*b + b-1.
//
// Eight codes fill b bytes and a unit of 64 codes fills 8b bytes, so no unit shares a byte with
// another one: threads write whole units. n codes take ceil(n*b/8) bytes; the bits after the last
// code are 0.
#pragma once

#include <cstdint>
#include <cstring>

#include "philox.h"

namespace torchext {

constexpr int kPackUnit = 64;

TX_HD int64_t packed_bytes(int64_t n, int bits) { return n / 8 * bits + (n % 8 * bits + 7) / 8; }

/// Packs `count` <= 64 codes; writes packed_bytes(count, bits) bytes.
TX_HD void pack_unit(const uint8_t* codes, int count, int bits, uint8_t* out) {
  uint32_t held = 0;
  int filled = 0;
  for (int i = 0; i < count; ++i) {
    held |= static_cast<uint32_t>(codes[i]) << filled;
    for (filled += bits; filled >= 8; filled -= 8) {
      *out++ = static_cast<uint8_t>(held);
      held >>= 8;
    }
  }
  if (filled > 0) *out = static_cast<uint8_t>(held);
}

/// Reads packed_bytes(count, bits) bytes.
TX_HD void unpack_unit(const uint8_t* packed, int count, int bits, uint8_t* codes) {
  const uint32_t mask = (1u << bits) - 1;
  uint32_t held = 0;
  int filled = 0;
  for (int i = 0; i < count; ++i) {
    if (filled < bits) {
      held |= static_cast<uint32_t>(*packed++) << filled;
      filled += 8;
    }
    codes[i] = static_cast<uint8_t>(held & mask);
    held >>= bits;
    filled -= bits;
  }
}

}  // namespace torchext
