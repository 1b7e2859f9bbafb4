// Lists of lattice tensors cut into chunks, for whatever runs them in parallel.
#pragma once

#include <algorithm>
#include <vector>

#include "../tree_sum.h"
#include "lattice.h"

namespace torchext {

constexpr int64_t kLatticeGrain = 16;  // chunks per task

inline int64_t lattice_chunks(int64_t n) { return (n + kLatticeChunk - 1) / kLatticeChunk; }

/// Runs body(tensor index, begin, end) over tensors of the given sizes, in ranges of whole chunks.
/// `parallel(count, f)` calls f(begin, end) on parts of [0, count), on threads of its own.
template <class Parallel, class Body>
void for_lattice_chunks(const std::vector<int64_t>& sizes, const Parallel& parallel,
                        const Body& body) {
  std::vector<int64_t> first_chunk = {0};
  for (const int64_t n : sizes) first_chunk.push_back(first_chunk.back() + lattice_chunks(n));
  parallel(first_chunk.back(), [&](int64_t begin, int64_t end) {
    auto next = std::upper_bound(first_chunk.begin(), first_chunk.end(), begin);
    while (begin < end) {
      const auto i = static_cast<size_t>(next - first_chunk.begin()) - 1;
      const int64_t stop = std::min(end, *next), first = first_chunk[i];
      if (stop > begin)
        body(i, (begin - first) * kLatticeChunk,
             std::min(sizes[i], (stop - first) * kLatticeChunk));
      begin = stop;
      ++next;
    }
  });
}

/// Adds the sums that a step left for the chunks of one tensor to its statistics, six numbers.
inline void add_lattice_sums(const double* sums, int64_t chunks, double* stats) {
  if (chunks == 0) return;
  for (int s = 0; s < kLatticeSums; ++s) {
    if (s == 4) continue;
    stats[s] += tree_sum(chunks, [&](int64_t c) { return sums[c * kLatticeSums + s]; });
  }
  stats[4] = 0.0;
  for (int64_t c = 0; c < chunks; ++c) stats[4] = std::max(stats[4], sums[c * kLatticeSums + 4]);
}

}  // namespace torchext
