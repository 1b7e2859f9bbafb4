// Loops with constant bounds, unrolled by the front end: arrays indexed so live in registers.
#pragma once

namespace torchext::cpu {
namespace {

#define TX_INL static inline __attribute__((always_inline))
#define TX_LAMBDA __attribute__((always_inline))

template <int I>
struct Index {
  static constexpr int value = I;
};

/// f(Index<0>), ..., f(Index<N-1>).
template <int N, class F>
TX_INL void repeat(const F& f) {
  if constexpr (N > 0) {
    repeat<N - 1>(f);
    f(Index<N - 1>{});
  }
}

}  // namespace
}  // namespace torchext::cpu
