#include "table.h"
#include "table_kernel.cuh"

namespace torchext::cuda {
int64_t level_tables_work(const LevelTables& p) noexcept { return work_of_block(p); }

cudaError_t launch_level_tables(const LevelTables& p, cudaStream_t stream) noexcept {
  if (p.largest() > kMostTableValues || p.levels < (p.stochastic ? 2 : 1))
    return cudaErrorInvalidValue;
  if (p.count == 0) return cudaSuccess;
  return p.stochastic ? launch_tables<Ends>(p, stream) : launch_nearest_tables(p, stream);
}

}  // namespace torchext::cuda
