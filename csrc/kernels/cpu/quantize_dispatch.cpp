#include "../quantize.h"
#include "dispatch.h"

namespace torchext::cpu {

const QuantizeKernels& quantize_kernels() noexcept {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return quantize_avx512;
    case Isa::avx2: return quantize_avx2;
    default: break;
  }
#endif
  return quantize_ref;
}

}  // namespace torchext::cpu
