// Sums and maxima over the 32 lanes of a warp, known to all of them.
#pragma once

#include "launch.h"

namespace torchext::cuda {

/// op over the values of all lanes: the butterfly, halves first.
template <class T, class Op>
TX_DEVICE T warp_reduce(T value, const Thread& t, const Op& op) {
  TX_UNROLL
  for (int half = 16; half > 0; half /= 2) value = op(value, t.shuffle_xor(value, half));
  return value;
}

/// For floats in the order that ends a chunk of tree_sum.
template <class T>
TX_DEVICE T warp_sum(T value, const Thread& t) {
  return warp_reduce(value, t, [](T a, T b) { return a + b; });
}

template <class T>
TX_DEVICE T warp_largest(T value, const Thread& t) {
  return warp_reduce(value, t, [](T a, T b) { return b > a ? b : a; });
}

}  // namespace torchext::cuda
