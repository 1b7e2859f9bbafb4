// Float part of the SGD kernels, ref.
#include "../../linear/dense_impl.h"
#include "../../linear/step_impl.h"

namespace torchext::cpu {

const SgdKernels& sgd_step_ref() noexcept {
  static const SgdKernels table = {tile_forward_ref, tile_backward_ref,  step_draws,
                                   step_round,       step_residual,      step_gradient,
                                   step_update,      dense_forward_impl, dense_backward_impl};
  return table;
}

}  // namespace torchext::cpu
