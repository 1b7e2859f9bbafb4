// Level tiles, reference: eight lanes in a plain loop.
#include <cmath>

namespace torchext::levels {
namespace {

struct V8 {
  double v[8];
};
struct Mask {
  bool v[8];
};
#define TX_OP static inline __attribute__((always_inline))
#define TX_EACH(result, expression)                  \
  result r;                                          \
  for (int k = 0; k < 8; ++k) r.v[k] = (expression); \
  return r
TX_OP V8 load(const double* p) { TX_EACH(V8, p[k]); }
TX_OP void store(double* p, V8 a) {
  for (int k = 0; k < 8; ++k) p[k] = a.v[k];
}
TX_OP V8 splat(double x) { TX_EACH(V8, x); }
TX_OP V8 add(V8 a, V8 b) { TX_EACH(V8, a.v[k] + b.v[k]); }
TX_OP V8 sub(V8 a, V8 b) { TX_EACH(V8, a.v[k] - b.v[k]); }
TX_OP V8 mul(V8 a, V8 b) { TX_EACH(V8, a.v[k] * b.v[k]); }
TX_OP V8 div(V8 a, V8 b) { TX_EACH(V8, a.v[k] / b.v[k]); }
TX_OP V8 fma(V8 a, V8 b, V8 c) { TX_EACH(V8, std::fma(a.v[k], b.v[k], c.v[k])); }
TX_OP V8 lesser(V8 a, V8 b) { TX_EACH(V8, b.v[k] < a.v[k] ? b.v[k] : a.v[k]); }
TX_OP Mask less(V8 a, V8 b) { TX_EACH(Mask, a.v[k] < b.v[k]); }
TX_OP Mask same(V8 a, V8 b) { TX_EACH(Mask, a.v[k] == b.v[k]); }
TX_OP Mask both(Mask a, Mask b) { TX_EACH(Mask, a.v[k] && b.v[k]); }
TX_OP Mask either(Mask a, Mask b) { TX_EACH(Mask, a.v[k] || b.v[k]); }
TX_OP V8 choose(Mask m, V8 a, V8 b) { TX_EACH(V8, m.v[k] ? a.v[k] : b.v[k]); }

}  // namespace
}  // namespace torchext::levels

#include "tile_impl.h"

namespace torchext::levels {

const TileKernels tiles_ref = kTiles;

}  // namespace torchext::levels
