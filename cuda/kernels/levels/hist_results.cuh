// What the kernels of one large table share: its results, and how a workspace is laid out.
#pragma once

#include <type_traits>

#include "block.cuh"
#include "finite.cuh"
#include "hist.h"

namespace torchext::cuda {

/// The geometry of kernels that are one block.
constexpr Launch kOneBlock{1, 1, kBlockScratch * sizeof(double)};

/// What is known about the cost of a table's levels, by one thread.
TX_DEVICE void write_bound(const HistLevels& p, double cost, levels::Bound bound) {
  *p.lower = bound.lower;
  *p.certified = bound.certified || (p.rtol > 0 && cost - bound.lower <= p.rtol * cost);
}

/// Results of a table with levels level_of(i), i < count.
template <class LevelOf>
TX_DEVICE void write_levels(const HistLevels& p, const Thread& t, const LevelOf& level_of,
                            int count, double cost, levels::Bound bound) {
  for (int i = t.thread(); i < p.levels; i += t.threads())
    p.found[i] = level_of(i < count ? i : count - 1) + 0.0;
  if (t.thread() != 0) return;
  *p.distinct = count;
  *p.cost = cost;
  write_bound(p, cost, bound);
}

/// Points `array` at `at` bytes into `memory`; the bytes that `count` elements take, to whole
/// lines.
template <class T>
int64_t place_array(unsigned char* memory, int64_t at, int64_t count, T** array) {
  *array = reinterpret_cast<T*>(memory + at);
  return (count * static_cast<int64_t>(sizeof(T)) + 127) / 128 * 128;
}

}  // namespace torchext::cuda
