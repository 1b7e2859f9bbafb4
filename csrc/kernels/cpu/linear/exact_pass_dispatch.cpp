// Which exact pass, grid rows and loss terms run, and the losses of a row: scalar, because a row's
// products cost far more.
#include <cmath>

#include "../../linear/exact_pass.h"
#include "../../linear/grid_rows.h"
#include "../../linear/loss_terms.h"
#include "../dispatch.h"

namespace torchext::cpu {

ExactPassFn* exact_pass_kernel() noexcept {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return exact_pass_avx512;
    case Isa::avx2: return exact_pass_avx2;
    default: break;
  }
#endif
  return exact_pass_ref;
}

GridRowsFn* grid_rows_kernel() noexcept {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return grid_rows_avx512;
    case Isa::avx2: return grid_rows_avx2;
    default: break;
  }
#endif
  return grid_rows_ref;
}

LossTermsFn* loss_terms_kernel() noexcept {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return loss_terms_avx512;
    case Isa::avx2: return loss_terms_avx2;
    default: break;
  }
#endif
  return loss_terms_ref;
}

namespace {

double softmax_row(double* z, int outputs, int label, double weight) noexcept {
  double top = z[0], total = 0.0;
  for (int o = 1; o < outputs; ++o) top = z[o] > top ? z[o] : top;
  const double own = z[label] - top;
  for (int o = 0; o < outputs; ++o) total += z[o] = std::exp(z[o] - top);
  for (int o = 0; o < outputs; ++o) z[o] = weight * (z[o] / total - (o == label ? 1.0 : 0.0));
  return weight * (std::log(total) - own);
}

}  // namespace

double row_loss(const ExactPass& p, int64_t row, double* z) noexcept {
  const double weight = p.weight != nullptr ? p.weight[row] : 1.0;
  if (p.loss == RowLoss::softmax)
    return softmax_row(z, p.outputs, static_cast<int>(p.y[row]), weight);
  double loss = 0.0;
  for (int o = 0; o < p.outputs; ++o) {
    const double y = p.y[row * p.outputs + o];
    if (p.loss == RowLoss::squared) {
      const double e = z[o] - y;
      loss += 0.5 * weight * e * e;
      z[o] = weight * e;
    } else {
      // exp of a negative number only: nothing overflows.
      const double margin = y * z[o], small = std::exp(-std::fabs(margin));
      loss += weight * (std::log1p(small) + (margin < 0.0 ? -margin : 0.0));
      z[o] = -weight * y * (margin < 0.0 ? 1.0 : small) / (1.0 + small);
    }
  }
  return loss;
}

}  // namespace torchext::cpu
