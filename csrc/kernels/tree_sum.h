// Sums whose bits do not depend on vector width, threads or device.
//
// Chunks of 1024 terms are summed by 32 strided lanes and a fixed butterfly; the list of chunk sums
// is summed by the same rule. One chunk is one warp's work on CUDA.
#pragma once

#include <cstdint>

#include "philox.h"

namespace torchext {

constexpr int64_t kTreeChunk = 1024;

/// Sum of term(0) .. term(n-1), n <= 1024, each a double.
template <class Term>
static inline double tree_sum_chunk(int64_t n, const Term& term) {
  double lane[32] = {};
  for (int64_t i = 0; i < n; ++i) lane[i % 32] += term(i);
  for (int half = 16; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

/// Sum of term(begin) .. term(begin+n-1) for any n, recursively over chunk sums, without
/// allocation.
template <class Term>
static inline double tree_sum_range(int64_t begin, int64_t n, const Term& term) {
  if (n <= kTreeChunk) {
    return tree_sum_chunk(n, [&](int64_t i) { return term(begin + i); });
  }
  int64_t unit = kTreeChunk;  // terms below one entry of the top list
  while (unit < (n + kTreeChunk - 1) / kTreeChunk) unit *= kTreeChunk;
  return tree_sum_chunk((n + unit - 1) / unit, [&](int64_t c) {
    const int64_t rest = n - c * unit;
    return tree_sum_range(begin + c * unit, rest < unit ? rest : unit, term);
  });
}

/// Sum of term(0) .. term(n-1) for any n.
template <class Term>
static inline double tree_sum(int64_t n, const Term& term) {
  return tree_sum_range(0, n, term);
}

}  // namespace torchext
