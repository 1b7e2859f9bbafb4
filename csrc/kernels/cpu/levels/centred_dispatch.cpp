// Which centring of values runs.
#include "../../levels/centred.h"
#include "../dispatch.h"

namespace torchext::levels {

CentredFn* centred() noexcept {
#if defined(__x86_64__)
  switch (cpu::active_isa()) {
    case cpu::Isa::avx512: return centred_avx512;
    case cpu::Isa::avx2: return centred_avx2;
    default: break;
  }
#endif
  return centred_ref;
}

}  // namespace torchext::levels
