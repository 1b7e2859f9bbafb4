// What a whole block of threads does together: reductions, a prefix sum, sorting.
#pragma once

#include "../warp_reduce.h"

namespace torchext::cuda {

/// Shared memory of the functions below and of row minima, in doubles: up to three for each warp.
constexpr int kBlockScratch = 64;

/// op over the values of all threads, for an op that has no order: maxima, sums of integers.
template <class T, class Op>
TX_DEVICE T block_reduce(const Thread& t, double* scratch, T value, const Op& op) {
  static_assert(sizeof(T) <= sizeof(double));
  auto* parts = reinterpret_cast<T*>(scratch);
  value = warp_reduce(value, t, op);
  t.sync();  // nobody reads the scratch of an earlier call any more
  if (t.lane() == 0) parts[t.warp()] = value;
  t.sync();
  value = parts[0];
  for (int w = 1; w < t.threads() / 32; ++w) value = op(value, parts[w]);
  return value;
}

TX_DEVICE double block_max(const Thread& t, double* scratch, double value) {
  return block_reduce(t, scratch, value, [](double a, double b) { return a < b ? b : a; });
}

TX_DEVICE int32_t block_sum(const Thread& t, double* scratch, int32_t value) {
  return block_reduce(t, scratch, value, [](int32_t a, int32_t b) { return a + b; });
}

/// Sum of the values of all threads before this one; `total`: of all.
TX_DEVICE int32_t block_scan(const Thread& t, double* scratch, int32_t value, int32_t* total) {
  auto* parts = reinterpret_cast<int32_t*>(scratch);
  int32_t upto = value;
  for (int d = 1; d < 32; d *= 2) {
    const int32_t below = t.shuffle_up(upto, d);
    if (t.lane() >= d) upto += below;
  }
  t.sync();
  if (t.lane() == 31) parts[t.warp()] = upto;
  t.sync();
  int32_t before = upto - value;
  *total = 0;
  for (int w = 0; w < t.threads() / 32; ++w) {
    if (w < t.warp()) before += parts[w];
    *total += parts[w];
  }
  return before;
}

/// Sorts x [n] ascending, n a power of two, by a bitonic network. kPairs: equal values have their
/// weights ascending.
template <bool kPairs>
TX_DEVICE void block_sort(const Thread& t, double* x, double* weight, int n) {
  for (int size = 2; size <= n; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int i = t.thread(); i < n / 2; i += t.threads()) {
        const int a = 2 * (i & ~(stride - 1)) | (i & (stride - 1)), b = a | stride;
        const bool up = (a & size) == 0;
        const double xa = x[a], xb = x[b];
        bool less = xb < xa, more = xa < xb;
        if (kPairs && xa == xb) {
          less = weight[b] < weight[a];
          more = weight[a] < weight[b];
        }
        if (up ? less : more) {
          x[a] = xb;
          x[b] = xa;
          if (kPairs) {
            const double held = weight[a];
            weight[a] = weight[b];
            weight[b] = held;
          }
        }
      }
      t.sync();
    }
  }
}

}  // namespace torchext::cuda
