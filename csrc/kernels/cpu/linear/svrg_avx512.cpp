// Float32 steps of SVRG, avx512.
#include "../../linear/svrg_impl.h"

namespace torchext::cpu {

const SvrgKernels& svrg_avx512() noexcept { return kSvrgKernels; }

}  // namespace torchext::cpu
