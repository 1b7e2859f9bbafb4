// What a line search over all rows needs of a loss, in one pass over scores.
//
// Scores start at z and have moved by d = moved + length * score. For row k with weight v_k
//   slope_o = v_k (l'_o(z + d) - l'_o(z)), formed without cancellation however small d is,
//             or v_k l'_o(z) where no move is given.
#pragma once

#include <cstdint>

#include "exact_pass.h"

namespace torchext::cpu {

struct LossTerms {
  RowLoss loss;
  int outputs;
  int64_t rows;
  const float* z;       // [outputs, z_stride]
  const float* y;       // [outputs, rows]: targets or signs; [rows]: class numbers of softmax
  const float* moved;   // [outputs, rows], or null: slopes at z itself
  const float* score;   // [outputs, rows], or null: length is 0
  const float* length;  // [outputs]
  const float* weight;  // [rows], or null
  float* slopes;        // [outputs, rows], or null
  int64_t z_stride;
};

constexpr int64_t kTermRows = 1024;  // rows whose sums are formed together
constexpr int kTermSums = 4;
constexpr int kTermScratch = 32 + 16 * kTermSums;

/// Rows [begin, end), at most kTermRows, begin a multiple of 16. Writes slopes and, for every
/// output, into sums [outputs][kTermSums]: the slope along the score sum slope_o score_o; the
/// second derivative of the loss along the score (of softmax in the first output's place, 0 in the
/// others'); sum slope_o; sum d_o^2. `scratch` holds kTermScratch floats an output.
using LossTermsFn = void(const LossTerms& a, int64_t begin, int64_t end, float* scratch,
                         double* sums) noexcept;

LossTermsFn loss_terms_ref, loss_terms_avx2, loss_terms_avx512;

/// The variant of the instruction set in use. All give the same bits.
LossTermsFn* loss_terms_kernel() noexcept;

}  // namespace torchext::cpu
