// The packed codes of a tile: 1024 codes between a bit stream and the lanes of a warp.
#pragma once

#include "float_io.h"
#include "kernels/pack.h"
#include "tiles.h"

namespace torchext::cuda {

constexpr int kTileRows = kTile / kRow;
constexpr int kTileWords = kTile / 4;  // of shared memory a warp: a byte a code

/// Four codes of kBits bits, from one a byte to adjacent ones.
template <int kBits>
TX_DEVICE uint32_t squeeze(uint32_t four) {
  const uint32_t pairs = (four & 0x00FF00FFu) | ((four & 0xFF00FF00u) >> (8 - kBits));
  return (pairs & 0xFFFFu) | (pairs >> 16) << (2 * kBits);
}

/// Packs 32 codes, of which `left` > 0 exist, into kBits words; `codes` is aligned to 16 bytes at
/// the start of the tile.
template <int kBits>
TX_DEVICE void pack_lane(const uint32_t* bytes, int left, uint8_t* codes) {
  uint32_t words[kBits] = {};
  uint64_t held = 0;
  TX_UNROLL
  for (int group = 0, filled = 0, out = 0; group < 8; ++group) {
    uint32_t four = bytes[group];
    const int some = left - 4 * group;  // codes of elements that exist
    if (some < 4) four = some <= 0 ? 0 : four & ((1u << 8 * some) - 1);
    held |= static_cast<uint64_t>(squeeze<kBits>(four)) << filled;
    filled += 4 * kBits;
    if (filled >= 32) {
      words[out++] = static_cast<uint32_t>(held);
      held >>= 32;
      filled -= 32;
    }
  }
  if (left >= 32) {
    auto* to = reinterpret_cast<uint32_t*>(codes);
    TX_UNROLL
    for (int k = 0; k < kBits; k += kBits % 4 == 0 ? 4 : 1) {
      if (kBits % 4 == 0) {
        *reinterpret_cast<Fours<uint32_t>*>(to + k) = Fours<uint32_t>{
            {words[k], words[(k + 1) % kBits], words[(k + 2) % kBits], words[(k + 3) % kBits]}};
      } else {
        to[k] = words[k];
      }
    }
    return;
  }
  const int count = static_cast<int>(packed_bytes(left, kBits));
  TX_UNROLL
  for (int k = 0; k < 4 * kBits; ++k)
    if (k < count) codes[k] = static_cast<uint8_t>(words[k / 4] >> 8 * (k % 4));
}

/// Packs the tile of `size` codes that the warp has put into `bytes`, a row of 32 words after
/// another, to `codes`, the start of the whole stream; all lanes take part.
TX_DEVICE void pack_tile(const Thread& t, const uint32_t* bytes, int bits, int64_t tile, int size,
                         uint8_t* codes) {
  t.sync_warp();
  const int first = 32 * t.lane(), left = size - first;
  if (left > 0) {
    const auto* from = reinterpret_cast<const Fours<uint32_t>*>(bytes + first / 4);
    uint32_t own[8];
    TX_UNROLL
    for (int k = 0; k < 8; ++k) own[k] = from[k / 4].v[k % 4];
    uint8_t* to = codes + (tile + first) / 8 * bits;
    switch (bits) {
      case 1: pack_lane<1>(own, left, to); break;
      case 2: pack_lane<2>(own, left, to); break;
      case 3: pack_lane<3>(own, left, to); break;
      case 4: pack_lane<4>(own, left, to); break;
      case 5: pack_lane<5>(own, left, to); break;
      case 6: pack_lane<6>(own, left, to); break;
      case 7: pack_lane<7>(own, left, to); break;
      default: pack_lane<8>(own, left, to);
    }
  }
  t.sync_warp();
}

/// Codes of elements i .. i+3 of a tile, i a multiple of 4, adjacent in the low bits; those from
/// `size` on are 0. `codes` is the tile's; `words`: it is aligned to 4 bytes.
TX_DEVICE uint32_t four_codes(const uint8_t* codes, int bits, int i, int size, bool words) {
  if (words && size == kTile) {
    const int bit = i * bits, shift = bit % 32;
    const auto* from = reinterpret_cast<const uint32_t*>(codes) + bit / 32;
    uint64_t held = from[0];
    if (shift + 4 * bits > 32) held |= static_cast<uint64_t>(from[1]) << 32;
    return static_cast<uint32_t>(held >> shift);
  }
  const int count = size - i < 4 ? size - i : 4;
  uint32_t held = 0;
  TX_ROLLED
  for (int e = 0; e < count; ++e) {
    const int bit = (i + e) * bits, shift = bit % 8;
    uint32_t code = codes[bit / 8];
    if (shift + bits > 8) code |= static_cast<uint32_t>(codes[bit / 8 + 1]) << 8;
    held |= (code >> shift & ((1u << bits) - 1)) << e * bits;
  }
  return held;
}

/// Code e of four adjacent ones.
TX_DEVICE int32_t code_of(uint32_t four, int e, int bits) {
  return static_cast<int32_t>(four >> e * bits & ((1u << bits) - 1));
}

}  // namespace torchext::cuda
