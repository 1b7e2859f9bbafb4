// Exact sums over the values of bins, whatever decides the bin of a value.
#pragma once

#include "../vector_io.h"
#include "block.cuh"
#include "hist.h"
#include "kernels/levels/float_bin.h"

namespace torchext::cuda {

constexpr int kEach = 4;  // values of a thread at a time, 16 bytes

/// Four values from i on; which of them exist is told by n.
TX_DEVICE void load_four(const float* x, int64_t n, int64_t i, bool aligned, float* v) {
  if (aligned && i + kEach <= n) {
    load<kEach>(x + i, v);
  } else {
    for (int j = 0; j < kEach; ++j) v[j] = i + j < n ? x[i + j] : 0.0f;
  }
}

/// A bin, and how far above its first key a value is; no bin: kNoBin.
struct Place {
  uint32_t bin, offset;
};

/// Number, sum and sum of squares of the offsets in every bin, added to global memory. A block
/// keeps four counters of 32 bits a bin in shared memory, which hold a chunk of 2^16 values, and
/// hands them on after each.
struct BinSums {
  static constexpr int kThreads = 512;
  static constexpr int64_t kChunk = 65536;
  static constexpr size_t kShared = 4 * kHistBins * sizeof(uint32_t);

  uint64_t *held, *first, *second;

  template <class PlaceOf>
  TX_DEVICE void add(const Thread& t, const float* x, int64_t n, int bins,
                     const PlaceOf& place_of) const {
    auto* few = t.shared<uint32_t>();
    uint32_t *sum = few + kHistBins, *low = sum + kHistBins, *high = low + kHistBins;
    const bool fits = bins <= kHistBins, aligned = is_aligned(x);
    for (int b = t.thread(); b < 4 * kHistBins; b += kThreads) few[b] = 0;
    t.sync();
    for (int64_t base = t.block() * kChunk; base < n; base += t.blocks() * kChunk) {
      const int64_t end = base + kChunk < n ? base + kChunk : n;
      for (int64_t i = base + t.thread() * kEach; i < end; i += kThreads * kEach) {
        float v[kEach];
        load_four(x, end, i, aligned, v);
        for (int j = 0; j < kEach && i + j < end; ++j) {
          const Place at = place_of(levels::key_of(v[j]));
          if (at.bin == levels::kNoBin) continue;
          const uint32_t square = at.offset * at.offset;
          if (fits) {
            t.add(few + at.bin, 1u);
            if (at.offset != 0) {
              t.add(sum + at.bin, at.offset);
              t.add(low + at.bin, square & 0xFFFF);
              if (square >> 16 != 0) t.add(high + at.bin, square >> 16);
            }
          } else {
            hand_on(t, at.bin, 1, at.offset, square);
          }
        }
      }
      if (!fits) continue;
      t.sync();
      for (int b = t.thread(); b < bins; b += kThreads) {
        if (few[b] == 0) continue;
        hand_on(t, static_cast<uint32_t>(b), few[b], sum[b], low[b] + (uint64_t{high[b]} << 16));
        few[b] = sum[b] = low[b] = high[b] = 0;
      }
      t.sync();
    }
  }

 private:
  TX_DEVICE void hand_on(const Thread& t, uint32_t bin, uint64_t number, uint64_t offsets,
                         uint64_t squares) const {
    t.add(held + bin, number);
    if (offsets == 0) return;
    t.add(first + bin, offsets);
    t.add(second + bin, squares);
  }
};

}  // namespace torchext::cuda
