// Launch function of the variance that stochastic rounding adds; needs no torch.
#pragma once

#include "formats.h"
#include "kernels/tree_sum.h"

namespace torchext::cuda {

/// Device memory throughout.
struct RoundingVarianceParams {
  DeviceFormat format;
  const void* x;
  FloatType x_type;
  int64_t n;
  double* work;  // [tree_work(n)]
  double* sum;   // [1]
};

/// Doubles of workspace: the sums of chunks, of chunks of those, and so on.
inline int64_t tree_work(int64_t n) noexcept {
  int64_t work = 0;
  for (int64_t left = n; left > 1;) work += left = (left + kTreeChunk - 1) / kTreeChunk;
  return work;
}

/// The tree sum of csrc/kernels/tree_sum.h, a warp a chunk.
cudaError_t launch_rounding_variance(const RoundingVarianceParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
