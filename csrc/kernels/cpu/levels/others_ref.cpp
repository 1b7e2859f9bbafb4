// Values other than one, reference: every value is written, and the next one over it unless kept.
#include "../../levels/common_value.h"

namespace torchext::levels {

size_t copy_others_ref(const float* x, size_t n, float common, float* out) noexcept {
  size_t kept = 0;
  for (size_t i = 0; i < n; ++i) {
    out[kept] = x[i];
    kept += x[i] != common;
  }
  return kept;
}

}  // namespace torchext::levels
