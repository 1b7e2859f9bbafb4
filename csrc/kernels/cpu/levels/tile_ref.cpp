// Level tiles, reference: eight lanes are four of the pairs that every x86-64 has.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace torchext::levels {
namespace {

struct V8 {
  typedef double Two __attribute__((vector_size(16)));
  Two v[4];
};
struct Mask {
  typedef int64_t Two __attribute__((vector_size(16)));
  Two v[4];
};
#define TX_OP static inline __attribute__((always_inline))
#define TX_EACH(result, expression)                  \
  result r;                                          \
  for (int k = 0; k < 4; ++k) r.v[k] = (expression); \
  return r
TX_OP V8 load(const double* p) {
  V8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
TX_OP V8 gather(const double* p, int64_t stride) {
  double v[8];
  for (int k = 0; k < 8; ++k) v[k] = p[k * stride];
  return load(v);
}
TX_OP void store(double* p, V8 a) { std::memcpy(p, &a, sizeof a); }
TX_OP void store_index(uint32_t* p, V8 a) {
  for (int k = 0; k < 8; ++k) p[k] = static_cast<uint32_t>(a.v[k / 2][k % 2]);
}
TX_OP V8 splat(double x) { TX_EACH(V8, (V8::Two{x, x})); }
TX_OP V8 add(V8 a, V8 b) { TX_EACH(V8, a.v[k] + b.v[k]); }
TX_OP V8 sub(V8 a, V8 b) { TX_EACH(V8, a.v[k] - b.v[k]); }
TX_OP V8 mul(V8 a, V8 b) { TX_EACH(V8, a.v[k] * b.v[k]); }
TX_OP V8 div(V8 a, V8 b) { TX_EACH(V8, a.v[k] / b.v[k]); }
TX_OP V8 fma(V8 a, V8 b, V8 c) {
  TX_EACH(V8, (V8::Two{std::fma(a.v[k][0], b.v[k][0], c.v[k][0]),
                       std::fma(a.v[k][1], b.v[k][1], c.v[k][1])}));
}
TX_OP Mask less(V8 a, V8 b) { TX_EACH(Mask, a.v[k] < b.v[k]); }
TX_OP Mask same(V8 a, V8 b) { TX_EACH(Mask, a.v[k] == b.v[k]); }
TX_OP Mask both(Mask a, Mask b) { TX_EACH(Mask, a.v[k] & b.v[k]); }
TX_OP Mask either(Mask a, Mask b) { TX_EACH(Mask, a.v[k] | b.v[k]); }
TX_OP V8 choose(Mask m, V8 a, V8 b) { TX_EACH(V8, m.v[k] ? a.v[k] : b.v[k]); }
TX_OP V8 lesser(V8 a, V8 b) { TX_EACH(V8, b.v[k] < a.v[k] ? b.v[k] : a.v[k]); }

}  // namespace
}  // namespace torchext::levels

#include "priced_impl.h"

namespace torchext::levels {

const TileKernels tiles_ref = kTiles;

}  // namespace torchext::levels
