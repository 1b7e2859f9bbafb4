// Products of a whole data set's codes with float vectors on CUDA: kernels/linear/code_products.h
// bit for bit.
//
// Rows are taken in rounds that bound the working memory: integer products of all rows of a round,
// then the float steps in the order of the CPU.
#pragma once

#include "tile_products.h"

namespace torchext::cuda {

struct CodeMatrix {
  TileMatrix tiles;   // all of them; one book
  const float* grid;  // [cols, 2]
  int64_t rows;
};

/// z[o, k] = sigma_o sum_j T_kj r_oj + beta_o; x [outputs, cols] is rounded in place to x'.
struct CodeDot {
  CodeMatrix a;
  int outputs, digits;
  double* x;
  float* z;  // [outputs, rows]
};

/// g[o, j] = sum_k e'_ok q_kj, slab by slab.
struct CodeSum {
  CodeMatrix a;
  int outputs, digits;
  const float* e;  // [outputs, rows]
  double* g;       // [outputs, cols]
};

/// Both: z = (Q + shift) x' + offset, e = weight z rounded; g [outputs, cols + 1] receives Q^T e
/// and the sums of e. offset, shift and weight may be null.
struct CodeGram {
  CodeMatrix a;
  int outputs, digits;
  double* x;
  const double *offset, *shift;
  const float* weight;
  double* g;
};

size_t code_dot_workspace(const CodeDot& p) noexcept;
size_t code_sum_workspace(const CodeSum& p) noexcept;
size_t code_gram_workspace(const CodeGram& p) noexcept;

cudaError_t launch_code_dot(const CodeDot& p, void* workspace, cudaStream_t stream) noexcept;
cudaError_t launch_code_sum(const CodeSum& p, void* workspace, cudaStream_t stream) noexcept;
cudaError_t launch_code_gram(const CodeGram& p, void* workspace, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
