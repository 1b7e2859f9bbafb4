// Float32 steps of SVRG, avx2.
#include "../../linear/svrg_impl.h"

namespace torchext::cpu {

const SvrgKernels& svrg_avx2() noexcept { return kSvrgKernels; }

}  // namespace torchext::cpu
