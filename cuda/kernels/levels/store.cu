#include "block.cuh"
#include "store.h"

namespace torchext::cuda {
namespace {

struct RoundLevels {
  using Params = StoreLevels;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    for (int64_t k = t.block(); k < p.count; k += t.blocks()) store(p, t, k);
  }

 private:
  TX_DEVICE static void store(const Params& p, const Thread& t, int64_t k) {
    auto* scratch = t.shared<double>();
    const double* found = p.found + k * p.levels;
    double* stored = p.stored + k * p.levels;
    const auto given = static_cast<int>(p.distinct[k]);
    // A single level that the format lacks lies between two that it has.
    const bool pair = p.outward && given == 1 && p.levels > 1;
    const int count = pair ? 2 : given;
    const auto rounded = [&](int i) {
      return levels::stored_level(p.format, found[pair ? 0 : i],
                                  levels::direction(p.outward, i, count));
    };
    const int chunk = (count + kThreads - 1) / kThreads, begin = t.thread() * chunk;
    const int end = begin + chunk < count ? begin + chunk : count;
    int moved = 0, beyond = 0, own = 0, distinct;
    for (int i = begin; i < end; ++i) {
      const double level = rounded(i);
      moved |= level != found[pair ? 0 : i];
      beyond |= !(std::fabs(level) <= levels::largest_number(p.format));
      own += i == 0 || level > rounded(i - 1);
    }
    moved = block_sum(t, scratch, moved);
    beyond = block_sum(t, scratch, beyond);
    int at = block_scan(t, scratch, own, &distinct);
    const bool none = count == 0 || beyond > 0;
    if (none) distinct = 0;
    for (int i = begin; !none && i < end; ++i) {
      const double level = rounded(i);
      if (i == 0 || level > rounded(i - 1)) stored[at++] = level;
    }
    const double last = none ? __builtin_nan("") : rounded(count - 1);
    for (int i = distinct + t.thread(); i < p.levels; i += kThreads) stored[i] = last;
    if (t.thread() != 0) return;
    p.moved[k] = moved > 0 && !none;
    p.distinct[k] = distinct;
    if (!none) return;
    p.cost[k] = p.lower[k] = __builtin_nan("");
    p.certified[k] = false;
  }
};

struct TakeCosts {
  struct Params {
    StoreLevels tables;
    const double *variance, *bias2;
  };
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    for (int64_t k = t.index(); k < p.tables.count; k += t.count()) {
      if (!p.tables.moved[k]) continue;
      const double cost = p.variance[k] + p.bias2[k];
      p.tables.cost[k] = cost;
      if (cost < p.tables.lower[k]) p.tables.lower[k] = cost;
    }
  }
};

}  // namespace

cudaError_t launch_store_levels(const StoreLevels& p, cudaStream_t stream) noexcept {
  if (p.count == 0) return cudaSuccess;
  return launch<RoundLevels>(p, {blocks_for(p.count, 1), 1, kBlockScratch * sizeof(double)},
                             stream);
}

cudaError_t launch_stored_costs(const StoreLevels& p, const double* variance, const double* bias2,
                                cudaStream_t stream) noexcept {
  if (p.count == 0) return cudaSuccess;
  return launch<TakeCosts>({p, variance, bias2}, {blocks_for(p.count, TakeCosts::kThreads)},
                           stream);
}

}  // namespace torchext::cuda
