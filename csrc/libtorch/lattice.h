// The lattice kernels on torch tensors. Undefined tensors are "none" throughout.
#pragma once

#include <torch/types.h>

#include <vector>

#include "kernels/optim/lattice.h"

namespace torchext::optim {

/// One parameter of a call; the formulas are at LatticeTensor and LatticeRule.
struct Entry {
  at::Tensor param, z, center, delta;
  at::Tensor grad, grad_center, full_grad, momentum, stats;
  LatticeRule rule{};
  uint32_t stream = 0;
};

/// Each is one parallel pass over all entries; parameters may have any strides that do not overlap.
void step(const std::vector<Entry>& entries);
void materialize(const std::vector<Entry>& entries);
void commit(const std::vector<Entry>& entries);
void encode(const std::vector<Entry>& entries);

/// ||x + weight_decay*center||^2 by a fixed tree of sums.
double square_sum(const at::Tensor& x, const at::Tensor& center, double weight_decay);

/// The arithmetic of a parameter: centre, momentum and full gradient have this dtype.
at::ScalarType own_dtype(const at::Tensor& param);

/// Codes that are all zero; two to a byte up to 4 bits.
at::Tensor new_codes(const at::Tensor& param, int64_t bits, bool pack);

/// Codes as numbers, in the shape and dtype of `like`.
at::Tensor code_values(const at::Tensor& z, const at::Tensor& like);

}  // namespace torchext::optim
