// Which level errors run.
#include "../../levels/error.h"
#include "../dispatch.h"

namespace torchext::levels {

AddErrorsFn* add_errors() noexcept {
#if defined(__x86_64__)
  switch (cpu::active_isa()) {
    case cpu::Isa::avx512: return add_errors_avx512;
    case cpu::Isa::avx2: return add_errors_avx2;
    default: break;
  }
#endif
  return add_errors_ref;
}

}  // namespace torchext::levels
