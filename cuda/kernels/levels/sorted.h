// Launch functions that make values ready for exact levels where they are not counted by their bit
// patterns, because they are float64 or have weights: they are sorted. Need no torch.
//
// A distinct value is known by its place among the distinct ones, which plays the part of a key.
#pragma once

#include "../launch.h"
#include "kernels/philox.h"  // TX_HD_MEMBER

namespace torchext::cuda {

constexpr int64_t kSortedChunk = 2048;  // values of a block at a time

/// One table. All pointers are device memory; [n] where nothing is said.
struct SortedValues {
  struct State {
    int64_t largest, heaviest;  // magnitude and weight, as bits
    int32_t bad;                // a value or a weight is not finite, or a weight negative
    int32_t present, distinct;  // values of positive weight; distinct is 0 without an answer
    int32_t power, weight_power;
    double centre;
  };
  /// Of kSortedChunk sorted values: how many distinct ones begin there, and later before them;
  /// weights, and what they add to the sum about the smallest value.
  struct Chunk {
    int64_t heads;
    double total, sum;
  };

  const float* x32;      // one of
  const double* x64;     // these two
  const double* weight;  // null: 1 each
  int64_t n;

  State* state;
  double* scaled;        // values divided by 2^power, those of no weight at the end: to be sorted
  const double* value;   // `scaled` in ascending order
  const int64_t* place;  // where they were
  double* heavy;         // their weights, divided by 2^weight_power; null: 1 each
  uint32_t* start;       // [n + 1] where a distinct value begins, and the end of the last
  Chunk* chunk;          // [chunks()]

  TX_HD_MEMBER int64_t chunks() const { return (n + kSortedChunk - 1) / kSortedChunk; }
  /// A value as it was given; -0.0 is +0.0.
  TX_HD_MEMBER double given(int64_t i) const {
    return (x32 != nullptr ? static_cast<double>(x32[i]) : x64[i]) + 0.0;
  }
  TX_HD_MEMBER double distinct(int64_t k) const { return value[start[k]]; }
};

/// Points the arrays into `memory`, but for those that the sort reads and writes; returns the bytes
/// that they take.
int64_t sorted_work(unsigned char* memory, SortedValues* p) noexcept;

/// Checks and scales the values, for the sort.
cudaError_t launch_scaled_values(const SortedValues& p, cudaStream_t stream) noexcept;

/// After the sort: the distinct values, their weights, and the centre.
cudaError_t launch_sorted_places(const SortedValues& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
