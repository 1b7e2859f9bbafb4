// Launch functions of optimal levels among candidates, a block of threads per table; need no torch.
#pragma once

#include "table.h"

namespace torchext::cuda {

/// Most candidates.
constexpr int64_t kMostCandidates = int64_t{1} << 14;

/// Which values may be levels: finite ones, in any order, repeated ones too. Device memory.
struct Candidates {
  const double* given;  // [size]
  int64_t size;
  double *sorted, *distinct;  // [capacity()] ascending
  int32_t* count;             // of the distinct ones; 0: one is not finite

  /// A power of two.
  TX_HD_MEMBER int64_t capacity() const {
    int64_t c = 2;
    while (c < size) c *= 2;
    return c;
  }
};

struct LevelsAmong {
  LevelTables tables;
  Candidates from;
};

/// Sorts the candidates.
cudaError_t launch_candidates(const Candidates& p, cudaStream_t stream) noexcept;

/// Bytes of workspace that a block needs.
int64_t levels_among_work(const LevelsAmong& p) noexcept;

/// The levels of csrc/kernels/levels/candidates.h, and how many are distinct; `lower` is what has
/// been proved about any levels among the candidates, infinity where all of them are levels. As in
/// table.h, a table without an answer has NaN and 0; one that stochastic candidates do not cover is
/// another.
cudaError_t launch_levels_among(const LevelsAmong& p, cudaStream_t stream) noexcept;

/// From what the levels cost (error_sums.h): cost, lower and certified.
cudaError_t launch_costs_among(const LevelTables& p, const double* variance, const double* bias2,
                               cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
