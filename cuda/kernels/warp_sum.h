// Sums and maxima over the 32 lanes of a warp.
#pragma once

#include "launch.h"

namespace torchext::cuda {

/// The butterfly that ends a chunk of tree_sum; the sum is in lane 0.
TX_DEVICE double warp_tree(double sum, const Thread& t) {
  TX_UNROLL
  for (int half = 16; half > 0; half /= 2) sum += t.shuffle_down(sum, half);
  return sum;
}

TX_DEVICE int warp_count(int count, const Thread& t) {
  TX_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) count += t.shuffle_xor(count, mask);
  return count;
}

template <class T>
TX_DEVICE T warp_largest(T value, const Thread& t) {
  TX_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) {
    const T other = t.shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace torchext::cuda
