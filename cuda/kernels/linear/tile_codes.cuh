// Codes of a tile, eight lanes to a group of four columns: from packed bytes to integers.
//
// A tile of the store holds 64 rows; its groups of four columns take 32*bits bytes each. Lane u of
// eight takes eight rows of a group, in words whose byte c belongs to column c. To look levels up,
// words are turned so that a word holds one column, and four codes select four bytes at once from
// registers (byte_permute): no shared memory, no bank conflicts.
#pragma once

#include "../byte_permute.h"
#include "../vector_io.h"
#include "kernels/layout.h"

namespace torchext::cuda {

/// Loads past the first-level cache, of streamed codes, which no thread writes.
TX_DEVICE uint32_t load_code(const uint32_t* from) {
#if defined(__CUDACC__)
  return __ldcg(from);
#else
  return *from;
#endif
}
TX_DEVICE Vector16 load_code(const Vector16* from) {
#if defined(__CUDACC__)
  const uint4 v = __ldcg(reinterpret_cast<const uint4*>(from));
  return {{v.x, v.y, v.z, v.w}};
#else
  return *from;
#endif
}

constexpr uint32_t kEachByte = 0x01010101u;

/// Eight rows of a group: slot s is row slot_row(u, s) of the tile. Up to 4 bits, a byte holds the
/// codes of slots k (low nibble) and k + 4.
template <int kBits>
struct LaneCodes {
  static constexpr bool kPairs = kBits <= 4;
  static constexpr int kWords = kPairs ? 4 : 8;
  uint32_t w[kWords];

  TX_DEVICE void clear() {
    TX_UNROLL
    for (int k = 0; k < kWords; ++k) w[k] = 0;
  }

  /// From the start of a group of a tile, aligned to 16 bytes.
  TX_DEVICE void load(const uint8_t* group, int u) {
    if constexpr (kBits == 4 || kBits == 8) {
      TX_UNROLL
      for (int half = 0; half < kWords / 4; ++half) {
        const Vector16 v = load_code(reinterpret_cast<const Vector16*>(group) + 8 * half + u);
        TX_UNROLL
        for (int k = 0; k < 4; ++k) w[4 * half + k] = v.w[k];
      }
    } else {
      load_planes(reinterpret_cast<const uint32_t*>(group) + u);
    }
  }

  /// Codes of the four columns in slot s, a byte each.
  TX_DEVICE uint32_t row(int s) const {
    return kPairs ? w[s & 3] >> (4 * (s >> 2)) & (15 * kEachByte) : w[s & (kWords - 1)];
  }

 private:
  /// Planes of 4, 2 and 1 bits: words u, u + 8, .. of each.
  TX_DEVICE void load_planes(const uint32_t* from) {
    constexpr int kFour = kBits & 4, kTwo = kBits & 2, kOne = kBits & 1;
    uint32_t four[4] = {}, two[2] = {}, one = 0;
    if constexpr (kFour != 0) {
      TX_UNROLL
      for (int k = 0; k < 4; ++k) four[k] = load_code(from + 8 * k);
    }
    if constexpr (kTwo != 0) {
      two[0] = load_code(from + 8 * kFour);
      two[1] = load_code(from + 8 * kFour + 8);
    }
    if constexpr (kOne != 0) one = load_code(from + 8 * (kFour + kTwo));
    TX_UNROLL
    for (int s = 0; s < kWords; ++s) {
      if constexpr (kPairs) {
        w[s] = two[s & 1] >> (2 * (s >> 1)) & (3 * kEachByte | 0x30 * kEachByte);
        w[s] |= (one >> s & (kEachByte | 0x10 * kEachByte)) << kTwo;
      } else {
        w[s] = four[2 * (s >> 2) + (s & 1)] >> (4 * (s >> 1 & 1)) & (15 * kEachByte);
        w[s] |= (two[s & 1] >> (2 * (s >> 1)) & (3 * kEachByte)) << kFour;
        w[s] |= (one >> s & kEachByte) << (kFour + kTwo);
      }
    }
  }
};

/// Row of a tile that lane u holds in slot s.
template <int kBits>
TX_HD int slot_row(int u, int s) {
  if (kBits == 4) return 32 * (u >> 2) + 16 * (s >> 2) + 4 * (u & 3) + (s & 3);
  if (kBits == 8) return 32 * (s >> 2) + 4 * u + (s & 3);
  return u + 8 * s;
}

/// Levels come out in positions 0..7: two slots of a byte side by side where a byte holds two.
template <int kBits, bool kTable>
TX_HD int position_row(int u, int position) {
  const int slot = kTable && kBits <= 4 ? (position >> 1) + 4 * (position & 1) : position;
  return slot_row<kBits>(u, slot);
}

/// The reverse: 8 u + position of a row.
template <int kBits, bool kTable>
TX_HD int row_place(int row) {
  int u = row % 8, slot = row / 8;
  if (kBits == 4) {
    u = 4 * (row / 32) + row % 16 / 4;
    slot = row % 4 + 4 * (row / 16 % 2);
  } else if (kBits == 8) {
    u = row % 32 / 4;
    slot = row % 4 + 4 * (row / 32);
  }
  const int position = kTable && kBits <= 4 ? 2 * (slot & 3) + (slot >> 2) : slot;
  return 8 * u + position;
}

/// What four codes select by: three bits each for a leaf of 8 bytes, then one bit a level.
template <int kBits>
struct Selector {
  static constexpr int kLevels = kBits > 3 ? kBits - 3 : 0;
  uint32_t leaf, level[kLevels > 0 ? kLevels : 1];
};

/// From a byte each to a nibble each.
TX_DEVICE uint32_t nibbles(uint32_t bytes) { return byte_permute(bytes | bytes >> 4, 0, 0x4420); }

constexpr uint32_t kSame = 0x3210;  // selects byte k for byte k; bit 2 of a nibble: from the other

/// Four codes in the low nibbles (up to 4 bits), or four bytes.
template <int kBits>
TX_DEVICE Selector<kBits> selector_of(uint32_t codes) {
  Selector<kBits> s;
  s.level[0] = 0;
  if constexpr (kBits <= 4) {
    s.leaf = codes & 0x7777u;
    if constexpr (kBits == 4) s.level[0] = (codes >> 1 & 0x4444u) | kSame;
  } else {
    s.leaf = nibbles(codes & (7 * kEachByte));
    const uint32_t high = nibbles(codes >> 3 & (15 * kEachByte));  // bits 3.. of each code
    TX_UNROLL
    for (int k = 0; k < kBits - 3; ++k) s.level[k] = (high >> k & 0x1111u) << 2 | kSame;
  }
  return s;
}

/// The levels of one column: in registers up to 5 bits, else where they are (first-level cache).
template <int kBits>
class LevelTable {
  static constexpr int kPermuted = 6;  // wider tables take longer to permute than to look up

 public:
  /// From 2^kBits bytes, aligned to their number, at most 16.
  TX_DEVICE void load(const uint8_t* from) {
    from_ = from;
    if constexpr (kBits == 1) {
      words_[0] = from[0] | uint32_t{from[1]} << 8;
    } else if constexpr (kBits <= 3) {
      TX_UNROLL
      for (int k = 0; k < kWords; ++k) words_[k] = reinterpret_cast<const uint32_t*>(from)[k];
    } else if constexpr (kBits <= 5) {
      cuda::load<kWords>(reinterpret_cast<const uint32_t*>(from), words_);
    }
  }

  /// Levels of four codes: in the low nibbles (up to 4 bits), or a byte each.
  TX_DEVICE uint32_t pick(uint32_t codes) const {
    if constexpr (kBits <= kPermuted) {
      return pick<Selector<kBits>::kLevels>(selector_of<kBits>(codes), 0);
    } else {
      uint32_t out = 0;
      TX_UNROLL
      for (int k = 0; k < 32; k += 8) out |= uint32_t{from_[codes >> k & 255u]} << k;
      return out;
    }
  }

 private:
  static constexpr int kWords = kBits <= 2 ? 1 : kBits <= 5 ? (1 << kBits) / 4 : 1;

  template <int kLevel>
  TX_DEVICE uint32_t pick(const Selector<kBits>& s, int leaf) const {
    if constexpr (kLevel > 0) {
      const uint32_t low = pick<kLevel - 1>(s, leaf),
                     high = pick<kLevel - 1>(s, leaf + (1 << (kLevel - 1)));
      return byte_permute(low, high, s.level[kLevel - 1]);
    } else if constexpr (kBits > 5) {
      const uint32_t* at = reinterpret_cast<const uint32_t*>(from_) + 2 * leaf;
      return byte_permute(at[0], at[1], s.leaf);
    } else {
      return byte_permute(words_[kWords > 1 ? 2 * leaf : 0], kWords > 1 ? words_[2 * leaf + 1] : 0,
                          s.leaf);
    }
  }

  uint32_t words_[kWords];
  const uint8_t* from_ = nullptr;
};

/// Integers of a lane's eight rows, a column at a time: the codes themselves, or levels of them.
template <int kBits, bool kTable>
class LaneColumns {
 public:
  TX_DEVICE explicit LaneColumns(const LaneCodes<kBits>& codes) {
    turn(codes.w, turned_);
    if constexpr (kBits > 4) turn(codes.w + 4, turned_ + 4);
  }

  /// Positions 4 half .. 4 half + 3 of column c, a byte each.
  TX_DEVICE uint32_t word(int c, int half, const LevelTable<kBits>& table) const {
    if constexpr (kTable) {
      return table.pick(kBits <= 4 ? turned_[c] >> (16 * half) : turned_[4 * half + c]);
    } else {
      return kBits <= 4 ? turned_[c] >> (4 * half) & (15 * kEachByte) : turned_[4 * half + c];
    }
  }

 private:
  uint32_t turned_[kBits <= 4 ? 4 : 8];
};

}  // namespace torchext::cuda
