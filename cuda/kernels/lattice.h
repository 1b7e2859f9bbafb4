// Launch functions of optimizer steps on lattices, over lists of tensors; need the CUDA runtime, no
// torch.
#pragma once

#include "kernels/optim/lattice.h"
#include "launch.h"

namespace torchext::cuda {

/// One tensor of a list, all memory on the device. Its spacing is read there: tensor.delta is
/// unused.
struct LatticeItem {
  LatticeTensor tensor;
  const void* delta;  // float or double as the arithmetic of the tensor; null: 1
  double* result;     // where its sums go; null: nowhere
};

/// What all tensors of a step share; rule.key and, where `lr` is given, rule.lr are not used.
struct LatticeStepArgs {
  LatticeRule rule;
  const uint64_t* key;  // seed, offset; null where nothing is drawn
  const void* lr;       // null: rule.lr
  bool lr_is_double;
  double* sums;  // kLatticeSums doubles for each chunk of the list; null: no statistics
};

/// Chunks of all tensors of a list.
int64_t lattice_chunks_of(const LatticeItem* items, int64_t count) noexcept;

/// One step. With `sums`, result[0..5] += the sums of the tensor, result[4] = the largest |q|.
cudaError_t launch_lattice_step(const LatticeStepArgs& args, const LatticeItem* items,
                                int64_t count, cudaStream_t stream) noexcept;

/// param = c + delta*q; commit: c too, and q = 0.
cudaError_t launch_lattice_place(bool commit, const LatticeItem* items, int64_t count,
                                 cudaStream_t stream) noexcept;

/// q = param/delta rounded to the nearest integer, saturating, 0 for NaN; param = delta*q. A tensor
/// whose spacing is not positive and finite is left alone.
cudaError_t launch_lattice_encode(int bits, const LatticeItem* items, int64_t count,
                                  cudaStream_t stream) noexcept;

/// result[0] += tree_sum of (full_grad + weight_decay*center)^2; `sums` has a double for each
/// chunk.
cudaError_t launch_square_sums(double weight_decay, double* sums, const LatticeItem* items,
                               int64_t count, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
