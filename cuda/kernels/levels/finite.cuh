// Values that are not finite, and what a table without an answer looks like.
#pragma once

#include "../launch.h"

namespace torchext::cuda {

TX_DEVICE bool is_finite(double x) { return x - x == 0; }

/// No levels for table k: NaN, count 0, not certified. By the threads of a block.
template <class Results>
TX_DEVICE void write_nothing(const Results& p, const Thread& t, int64_t k = 0) {
  const double nan = __builtin_nan("");
  for (int i = t.thread(); i < p.levels; i += t.threads()) p.found[k * p.levels + i] = nan;
  if (t.thread() != 0) return;
  p.distinct[k] = 0;
  p.cost[k] = p.lower[k] = nan;
  p.certified[k] = false;
}

}  // namespace torchext::cuda
