// Values about a centre, avx512.
#include "centred_impl.h"

namespace torchext::levels {

void centred_avx512(const double* x, size_t n, double centre, Centred* out) noexcept {
  centre_values(x, n, centre, out);
}

}  // namespace torchext::levels
