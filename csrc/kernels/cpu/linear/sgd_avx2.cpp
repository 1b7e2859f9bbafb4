// Float part of the SGD kernels, avx2.
#include "../../linear/dense_impl.h"
#include "../../linear/step_impl.h"

namespace torchext::cpu {

const SgdKernels& sgd_step_avx2() noexcept {
  static const SgdKernels table = {tile_forward_avx2, tile_backward_avx2, step_draws,
                                   step_round,        step_residual,      step_gradient,
                                   step_update,       dense_forward_impl, dense_backward_impl};
  return table;
}

}  // namespace torchext::cpu
