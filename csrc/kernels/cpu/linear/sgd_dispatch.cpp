#include "../../linear/sgd_kernels.h"
#include "../dispatch.h"

namespace torchext::cpu {

const SgdKernels& sgd_kernels() noexcept {
#if defined(__x86_64__)
  static const bool vnni = has_vnni_vbmi();
  static const SgdKernels fast = [] {
    SgdKernels k = sgd_step_avx512();
    k.forward = tile_forward_avx512vnni;
    k.backward = tile_backward_avx512vnni;
    return k;
  }();
  switch (active_isa()) {
    case Isa::avx512:
      return vnni ? fast : sgd_step_avx512();  // without VNNI the integer loops are the AVX2 ones
    case Isa::avx2: return sgd_step_avx2();
    default: break;
  }
#endif
  return sgd_step_ref();
}

}  // namespace torchext::cpu
