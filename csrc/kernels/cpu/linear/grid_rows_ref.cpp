// Rows on a grid, ref.
#include "../../linear/grid_rows_impl.h"

namespace torchext::cpu {

void grid_rows_ref(const GridRows& p, int64_t begin, int64_t end) noexcept {
  grid_rows_impl(p, begin, end);
}

}  // namespace torchext::cpu
