// Values about a centre, ref.
#include "centred_impl.h"

namespace torchext::levels {

void centred_ref(const double* x, size_t n, double centre, Centred* out) noexcept {
  centre_values(x, n, centre, out);
}

}  // namespace torchext::levels
