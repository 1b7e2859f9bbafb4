// Which level tiles run.
#include "../../levels/tile.h"
#include "../dispatch.h"

namespace torchext::levels {

const TileKernels& tile_kernels() noexcept {
#if defined(__x86_64__)
  switch (cpu::active_isa()) {
    case cpu::Isa::avx512: return tiles_avx512;
    case cpu::Isa::avx2: return tiles_avx2;
    default: break;
  }
#endif
  return tiles_ref;
}

}  // namespace torchext::levels
