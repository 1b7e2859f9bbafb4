// Launch functions of approximate optimal levels of one large table, by bins; need no torch.
#pragma once

#include "../launch.h"
#include "kernels/levels/interval.h"

namespace torchext::cuda {

constexpr int64_t kHistBins = 4096;        // at most, unless more coarse ones are in use
constexpr int32_t kMostHistLevels = 1024;  // argmins of all layers are kept
constexpr int kMostItems = 65536;          // bins in use and the two ends, fewer than 2^16

/// Where the arrays of a run lie in the workspace; all are device memory.
struct HistWork {
  struct State {
    int64_t below, above;  // 2^32 - smallest key, largest key + 1
    int32_t not_finite, bins, items, single;
    double centre, radius, largest_sum, cut_error, cost;
  };
  State* state;
  uint32_t* count;                  // of coarse bins
  uint64_t *held, *first, *second;  // of bins: values, sums of their offsets and of their squares
  int64_t zeroed;                   // bytes from `state` that start as zeros
  uint32_t *map, *key;              // first bin << 5 | shift of a coarse bin; first key of a bin
  uint32_t* bin;                    // of an item; the ends may have none
  uint8_t* shift;
  double *lo, *hi, *planes;  // of items
  levels::Cut* cut;
  levels::DD* terms;
  uint16_t *arg, *args;
  int32_t* path;
  int64_t bytes;
};

HistWork hist_work(unsigned char* memory, int32_t levels) noexcept;

/// Levels of x [n], n < 2^31: stochastic ones among the starts of its bins, or the means of runs of
/// bins. The same levels and cost as csrc/kernels/levels/solve.h by Method::hist without a
/// tolerance. Results as in LevelTables.
struct HistLevels {
  const float* x;
  int64_t n;
  int32_t levels;
  bool stochastic;
  double rtol;  // the gap that counts as certified, if that is more than settled() allows
  double* found;
  int64_t* distinct;
  double *cost, *lower;
  bool* certified;
  HistWork work;

  /// Of a path: its levels, or the borders of its cells.
  TX_HD_MEMBER int32_t positions() const { return levels + (stochastic ? 0 : 1); }
};

/// Bins of x and their exact sums. Two passes over x.
cudaError_t launch_float_bins(const HistLevels& p, cudaStream_t stream) noexcept;

/// The bins as items, with the sums below each.
cudaError_t launch_hist_items(const HistLevels& p, cudaStream_t stream) noexcept;

/// Levels, cost and lower bound from the bins.
cudaError_t launch_hist_levels(const HistLevels& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
