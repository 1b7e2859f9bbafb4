// Which exact pass, grid rows and loss terms run.
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

}  // namespace torchext::cpu
