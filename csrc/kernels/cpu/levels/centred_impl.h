// Values about a centre, for a file that gives the function its name; the compiler makes vectors of
// it.
#include "../../levels/centred.h"
#include "../../levels/dd.h"

namespace torchext::levels {
namespace {

inline void centre_values(const double* x, size_t n, double centre, Centred* out) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const DD t = two_sum(x[i], -centre), square = t * t;
    out->t[0][i] = t.h;
    out->t[1][i] = t.l;
    out->square[0][i] = square.h;
    out->square[1][i] = square.l;
  }
}

}  // namespace
}  // namespace torchext::levels
