// Launch functions of levels in the format that they are stored in; need no torch.
#pragma once

#include "../launch.h"
#include "kernels/levels/stored.h"

namespace torchext::cuda {

/// All pointers are device memory.
struct StoreLevels {
  int64_t count;  // of tables
  int32_t levels;
  levels::StoredFormat format;
  bool outward;

  const double* found;  // [count, levels] ascending, the first `distinct` of them count
  double* stored;     // [count, levels] rounded, equal ones merged; copies of the last behind them
  bool* moved;        // [count] whether a level changed
  int64_t* distinct;  // updated; as the others, where a level is beyond the format: NaN and 0
  double *cost, *lower;
  bool* certified;
};

/// As csrc/kernels/levels/stored.h stores levels.
cudaError_t launch_store_levels(const StoreLevels& p, cudaStream_t stream) noexcept;

/// Takes what the stored levels of a table cost, where they are not those that were found. variance
/// and bias2 [count] are those of error_sums.h.
cudaError_t launch_stored_costs(const StoreLevels& p, const double* variance, const double* bias2,
                                cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
