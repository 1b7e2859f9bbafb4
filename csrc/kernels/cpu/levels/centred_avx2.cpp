// Values about a centre, avx2.
#include "centred_impl.h"

namespace torchext::levels {

void centred_avx2(const double* x, size_t n, double centre, Centred* out) noexcept {
  centre_values(x, n, centre, out);
}

}  // namespace torchext::levels
