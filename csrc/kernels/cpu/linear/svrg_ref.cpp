// Float32 steps of SVRG, ref.
#include "../../linear/svrg_impl.h"

namespace torchext::cpu {

float svrg_step_ref(const SvrgStep& s) noexcept { return svrg_step_impl(s); }

}  // namespace torchext::cpu
