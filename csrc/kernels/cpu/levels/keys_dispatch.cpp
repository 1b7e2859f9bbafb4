// Which passes over keys run.
#include "../../levels/key_passes.h"
#include "../dispatch.h"

namespace torchext::levels {

const KeyPasses& key_passes() noexcept {
#if defined(__x86_64__)
  switch (cpu::active_isa()) {
    case cpu::Isa::avx512: return key_passes_avx512;
    case cpu::Isa::avx2: return key_passes_avx2;
    default: break;
  }
#endif
  return key_passes_ref;
}

}  // namespace torchext::levels
