// Which exact pass, grid rows and loss terms run, and the losses of a row: scalar, because a row's
// products cost far more.
#include "../../linear/exact_pass.h"
#include "../../linear/grid_rows.h"
#include "../../linear/loss_terms.h"
#include "../../linear/row_loss.h"
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

double row_loss(const ExactPass& p, int64_t row, double* z) noexcept {
  const double weight = p.weight != nullptr ? p.weight[row] : 1.0;
  if (p.loss == RowLoss::softmax)
    return softmax_row(z, p.outputs, static_cast<int>(p.y[row]), weight);
  double loss = 0.0;
  for (int o = 0; o < p.outputs; ++o)
    loss += output_loss(p.loss, p.y[row * p.outputs + o], weight, z + o);
  return loss;
}

}  // namespace torchext::cpu
