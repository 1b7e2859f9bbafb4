// Many tensors in one launch: a table of them in the kernel's parameters, a warp for each chunk.
//
// A chunk is the 1024 elements that tree_sum adds up first, so that sums of a step need no other
// memory than one row of results a chunk, and come out as on the CPU.
#pragma once

#include "kernels/optim/lattice_lists.h"
#include "lattice.h"

namespace torchext::cuda {

/// The tensors of one launch; kernel parameters have 4 KiB.
struct LatticeTable {
  static constexpr int kMost = 32;
  int64_t first[kMost + 1];  // chunk with which a tensor begins; the last entry: their number
  LatticeItem items[kMost];
  int count;
};

/// Chunks of tensor i.
TX_DEVICE int64_t chunks_of(const LatticeTable& table, int i) {
  return table.first[i + 1] - table.first[i];
}

/// Runs body(tensor of the table, chunk of the tensor) on the warps of the launch, 32 lanes
/// together.
template <class Body>
TX_DEVICE void over_chunks(const LatticeTable& table, const Thread& t, const Body& body) {
  const int64_t warps = t.threads() / 32, total = table.first[table.count];
  for (int64_t c = t.block() * warps + t.warp(); c < total; c += t.blocks() * warps) {
    int i = 0, end = table.count;  // first[i] <= c < first[end]
    while (end - i > 1) {
      const int middle = (i + end) / 2;
      (table.first[middle] <= c ? i : end) = middle;
    }
    body(i, c - table.first[i]);
  }
}

/// Cuts a list into tables and calls run(table, chunks before it) until one fails. Empty tensors
/// have no work.
template <class Run>
cudaError_t over_tables(const LatticeItem* items, int64_t count, const Run& run) noexcept {
  cudaError_t status = cudaSuccess;
  int64_t done = 0;
  for (int64_t i = 0; i < count && status == cudaSuccess;) {
    LatticeTable table{};
    for (; i < count && table.count < LatticeTable::kMost; ++i) {
      if (items[i].tensor.n == 0) continue;
      table.items[table.count] = items[i];
      const int64_t chunks = lattice_chunks(items[i].tensor.n);
      table.first[table.count + 1] = table.first[table.count] + chunks;
      ++table.count;
    }
    if (table.count == 0) break;
    status = run(table, done);
    done += table.first[table.count];
  }
  return status;
}

/// Blocks of `threads` threads that give each chunk of a table a warp.
inline Launch chunk_launch(const LatticeTable& table, int threads, size_t shared = 0) noexcept {
  return {blocks_for(table.first[table.count], threads / 32), 1, shared};
}

/// The spacing of a tensor in its arithmetic T.
template <class T>
TX_DEVICE T spacing(const LatticeItem& item) {
  return item.delta == nullptr ? T{1} : *static_cast<const T*>(item.delta);
}

/// Adds up the chunk sums of a table by the rest of tree_sum and puts them into the results:
/// `kinds` sums a tensor, each as an array over its chunks, one tensor after the other; of
/// kLatticeSums kinds number 4 is a maximum. Destroys `sums`.
cudaError_t fold_sums(const LatticeTable& table, int kinds, double* sums,
                      cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
