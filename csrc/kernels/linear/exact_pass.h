// One pass over full-precision rows: predictions, loss and gradient of a linear model, in float64.
//
// For output o and row k with a weight v_k (1 if none is given)
//   z_k[o] = offset[o] + sum_j w[o][j] x_k[j]
//   gradient[o][j] += sum_k v_k l'_o(z_k, y_k) x_k[j],   gradient[o][cols] += sum_k v_k l'_o(z_k,
//   y_k) loss += sum_k v_k l(z_k, y_k)
// Both products of a block of rows are formed while it is in the cache: the rows are read once.
#pragma once

#include <cstdint>

namespace torchext::cpu {

/// squared: (z - y)^2 / 2; logistic: log(1 + exp(-y z)), y = +-1; softmax: log sum_o exp(z[o]) -
/// z[y].
enum class RowLoss : int { squared = 0, logistic = 1, softmax = 2 };

/// Type of the rows' elements.
enum class RowType : int { f32, f64, i8, i16 };

struct ExactPass {
  const void* x;  // row k starts k*stride elements in; elements of a row are adjacent
  RowType type;
  int64_t stride, cols;
  int outputs;
  const double* w;       // [outputs, cols]
  const double* offset;  // [outputs]
  const double* y;       // [rows, outputs], or class numbers [rows] for softmax
  const double* weight;  // [rows] or null
  RowLoss loss;
  float* z;  // [outputs, z_stride], column k belongs to row k
  int64_t z_stride;
};

constexpr int64_t kExactChunk = 1024;  // rows whose sums join the total together
constexpr int64_t kExactRows = 16;     // rows per block: both passes over them stay in the cache

/// Rows [begin, end) into gradient [outputs, cols + 1] and loss [1], which are added to. `scratch`
/// holds kExactRows * outputs doubles.
using ExactPassFn = void(const ExactPass& p, int64_t begin, int64_t end, double* scratch,
                         double* gradient, double* loss) noexcept;

ExactPassFn exact_pass_ref, exact_pass_avx2, exact_pass_avx512;

/// The variant of the instruction set in use. All sum in the same order and give the same bits.
ExactPassFn* exact_pass_kernel() noexcept;

}  // namespace torchext::cpu
