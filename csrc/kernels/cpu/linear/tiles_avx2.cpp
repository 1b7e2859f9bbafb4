// Integer products with tile4 codes, AVX2.
#include "../../linear/sgd_kernels.h"

namespace torchext::cpu {

void tile_forward_avx2(const TileArgs& a, const int8_t* wq, int32_t* dots,
                       const Prefetch& ahead) noexcept {
  tile_forward_ref(a, wq, dots, ahead);
}
void tile_backward_avx2(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                        const Prefetch& ahead) noexcept {
  tile_backward_ref(a, eq, sums, add, ahead);
}

}  // namespace torchext::cpu
