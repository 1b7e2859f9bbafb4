// Sums of chunks joined in their order, as csrc/ops/ordered_sums.h joins them on the CPU.
#pragma once

#include "launch.h"

namespace torchext::cuda {

/// to[i] += parts[c * size + i] for c = 0 .. count - 1 in order; the last of the `size` columns
/// goes to `last` where it is given.
struct OrderedSumParams {
  const double* parts;  // [count, size]
  double *to, *last;
  int64_t count, size;
};

cudaError_t launch_ordered_sum(const OrderedSumParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
