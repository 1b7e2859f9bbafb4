// Several independent stochastic roundings of one value, stored as its interval and one bit a draw.
//
// A value between levels[base] and levels[base + 1] rounds to one of the two in every draw, so k
// draws cost the interval index and k bits, or the number of upward draws alone: which draws went
// up is exchangeable, and the decoder may deal them out with coins of its own (form count).
#pragma once

#include "quantize.h"

namespace torchext {

enum class DrawForm : int { bits, count, ternary };

struct DrawCode {
  int32_t base;  // lower level; -1 for NaN
  uint32_t ups;  // bit d: draw d went up
};

constexpr int kCountsAByte = 5;  // of form ternary: 3^5 = 243 combinations of {0, 1, 2}

/// Count of element i in a stream of form ternary.
TX_HD uint32_t ternary_at(const uint8_t* packed, int64_t i) {
  uint32_t power = 1;
  for (int k = static_cast<int>(i % kCountsAByte); k > 0; --k) power *= 3;
  return packed[i / kCountsAByte] / power % 3;
}

/// The byte of `count` <= 5 counts.
TX_HD uint8_t ternary_byte(const uint8_t* counts, int count) {
  int byte = 0;
  for (int k = count - 1; k >= 0; --k) byte = 3 * byte + counts[k];
  return static_cast<uint8_t>(byte);
}

/// All draws of element i; draw d uses Philox draw number d.
static inline DrawCode draw_code(float x, int64_t i, const float* levels, int32_t last, int draws,
                                 Key key, uint32_t stream) {
  if (x != x) return {-1, 0};
  if (last == 0) return {0, 0};
  const int32_t base = level_below(x, levels, last);
  const float fraction = level_fraction(x, levels, base);
  uint32_t ups = 0;
  for (int d = 0; d < draws; ++d) {
    const float u = unit(draw1(key, static_cast<uint64_t>(i), stream, static_cast<uint32_t>(d)));
    ups |= static_cast<uint32_t>(u < fraction) << d;
  }
  return {base, ups};
}

/// Whether the next of `places` places is up where `left` of them must be.
TX_HD bool deal_one(uint32_t word, int places, uint32_t left) {
  return static_cast<uint32_t>(uint64_t{word} * static_cast<uint32_t>(places) >> 32) < left;
}

/// Deals `count` upward draws to `draws` places, every arrangement equally likely: place d is up
/// with probability (ups left) / (places left). For two draws this is one fair coin per element.
static inline bool dealt_up(int64_t i, int draw, uint32_t count, int draws, Key key,
                            uint32_t stream) {
  uint32_t left = count;
  bool up = false;
  for (int d = 0; d <= draw; ++d) {
    const uint32_t word = draw1(key, static_cast<uint64_t>(i), stream, static_cast<uint32_t>(d));
    up = deal_one(word, draws - d, left);
    left -= up ? 1u : 0u;
  }
  return up;
}

/// Smallest b with 2^b >= count.
static inline int bits_for(int64_t count) {
  int bits = 0;
  while (int64_t{1} << bits < count) ++bits;
  return bits;
}

}  // namespace torchext
