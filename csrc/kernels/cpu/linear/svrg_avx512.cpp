// Float32 steps of SVRG, avx512.
#include "../../linear/svrg_impl.h"

namespace torchext::cpu {

float svrg_step_avx512(const SvrgStep& s) noexcept { return svrg_step_impl(s); }

}  // namespace torchext::cpu
