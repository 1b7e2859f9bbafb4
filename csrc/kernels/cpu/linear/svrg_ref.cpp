// Float32 steps of SVRG, ref.
#include "../../linear/svrg_impl.h"

namespace torchext::cpu {

const SvrgKernels& svrg_ref() noexcept { return kSvrgKernels; }

}  // namespace torchext::cpu
