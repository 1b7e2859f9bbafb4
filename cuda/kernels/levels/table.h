// Launch function of exact optimal levels, a block of threads per table; needs no torch.
#pragma once

#include "../launch.h"
#include "kernels/philox.h"  // TX_HD_MEMBER

namespace torchext::cuda {

/// Most values of a table.
constexpr int64_t kMostTableValues = int64_t{1} << 14;

/// Levels of every group of x, [.., k, ..] of (outer, count, inner); groups of a flat x (outer 1)
/// are consecutive and the last may be shorter. All pointers are device memory.
struct LevelTables {
  const float* x32;      // one of
  const double* x64;     // these two
  const double* weight;  // like x; null: 1 each
  int64_t outer, count, inner, n;
  int32_t levels;  // of a table, at least 2 (nearest: 1)
  bool stochastic;
  double rtol;

  double* found;      // [count, levels] ascending, the last distinct one repeated
  int64_t* distinct;  // [count] how many; 0, and NaN elsewhere, where a table's values or weights
  double *cost, *lower;  // are not finite, or no weight is positive
  bool* certified;

  unsigned char* work;  // blocks of level_tables_work() bytes each
  int64_t blocks;

  TX_HD_MEMBER int64_t largest() const {
    const int64_t all = outer * inner;
    return all < n ? all : n;
  }
};

/// Bytes of workspace that a block needs.
int64_t level_tables_work(const LevelTables& p) noexcept;

/// Levels as csrc/kernels/levels/solve.h finds them: the same levels, unless several sets are
/// optimal to the rounding of the programme, and the same cost. Two launches: in double, then in
/// double-double where that proved too little. At most kMostTableValues values a table.
cudaError_t launch_level_tables(const LevelTables& p, cudaStream_t stream) noexcept;
cudaError_t launch_nearest_tables(const LevelTables& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
