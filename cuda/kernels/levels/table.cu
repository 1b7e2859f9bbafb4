#include "table.h"
#include "table_kernel.cuh"

namespace torchext::cuda {
namespace {

struct TakeStoredCosts {
  using Params = StoredCosts;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    for (int64_t k = t.index(); k < p.count; k += t.count()) {
      if (!p.moved[k]) continue;
      const double cost = p.variance[k] + p.bias2[k];
      p.cost[k] = cost;
      if (cost < p.lower[k]) p.lower[k] = cost;
    }
  }
};

}  // namespace

int64_t level_tables_work(const LevelTables& p) noexcept { return work_of_block(p); }

cudaError_t launch_level_tables(const LevelTables& p, cudaStream_t stream) noexcept {
  if (p.largest() > kMostTableValues || p.levels < (p.stochastic ? 2 : 1))
    return cudaErrorInvalidValue;
  if (p.count == 0) return cudaSuccess;
  return p.stochastic ? launch_tables<Ends>(p, stream) : launch_nearest_tables(p, stream);
}

cudaError_t launch_stored_costs(const StoredCosts& p, cudaStream_t stream) noexcept {
  if (p.count == 0) return cudaSuccess;
  return launch<TakeStoredCosts>(p, {blocks_for(p.count, TakeStoredCosts::kThreads)}, stream);
}

}  // namespace torchext::cuda
