// Rows on a grid, avx2.
#include "../../linear/grid_rows_impl.h"

namespace torchext::cpu {

void grid_rows_avx2(const GridRows& p, int64_t begin, int64_t end) noexcept {
  grid_rows_impl(p, begin, end);
}

}  // namespace torchext::cpu
