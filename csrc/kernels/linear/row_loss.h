// Losses of one row in float64, for the exact pass; the CPU and CUDA share them.
#pragma once

#include <cmath>

#include "../philox.h"
#include "exact_pass.h"

namespace torchext::cpu {

/// Class `label` in [0, outputs): slopes in place of z, returns the loss, both times `weight`.
TX_HD double softmax_row(double* z, int outputs, int label, double weight) {
  double top = z[0], total = 0.0;
  for (int o = 1; o < outputs; ++o) top = z[o] > top ? z[o] : top;
  const double own = z[label] - top;
  for (int o = 0; o < outputs; ++o) total += z[o] = std::exp(z[o] - top);
  for (int o = 0; o < outputs; ++o) z[o] = weight * (z[o] / total - (o == label ? 1.0 : 0.0));
  return weight * (std::log(total) - own);
}

/// The other losses, output by output: slope in place of *z, returns the loss, both times `weight`.
TX_HD double output_loss(RowLoss loss, double y, double weight, double* z) {
  if (loss == RowLoss::squared) {
    const double e = *z - y;
    *z = weight * e;
    return 0.5 * weight * e * e;
  }
  // exp of a negative number only: nothing overflows.
  const double margin = y * *z, small = std::exp(-std::fabs(margin));
  *z = -weight * y * (margin < 0.0 ? 1.0 : small) / (1.0 + small);
  return weight * (std::log1p(small) + (margin < 0.0 ? -margin : 0.0));
}

}  // namespace torchext::cpu
