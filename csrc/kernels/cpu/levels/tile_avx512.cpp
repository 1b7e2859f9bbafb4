// Level tiles, avx512.
#include <immintrin.h>

#include <cstdint>

namespace torchext::levels {
namespace {

using V8 = __m512d;
using Mask = __mmask8;
#define TX_OP static inline __attribute__((always_inline))
TX_OP V8 load(const double* p) { return _mm512_loadu_pd(p); }
TX_OP V8 gather(const double* p, int64_t stride) {
  const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_i64gather_pd(_mm512_mullo_epi64(lane, _mm512_set1_epi64(stride)), p, 8);
}
TX_OP void store(double* p, V8 a) { _mm512_storeu_pd(p, a); }
TX_OP void store_index(uint32_t* p, V8 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvttpd_epi32(a));
}
TX_OP V8 splat(double x) { return _mm512_set1_pd(x); }
TX_OP V8 add(V8 a, V8 b) { return _mm512_add_pd(a, b); }
TX_OP V8 sub(V8 a, V8 b) { return _mm512_sub_pd(a, b); }
TX_OP V8 mul(V8 a, V8 b) { return _mm512_mul_pd(a, b); }
TX_OP V8 div(V8 a, V8 b) { return _mm512_div_pd(a, b); }
TX_OP V8 fma(V8 a, V8 b, V8 c) { return _mm512_fmadd_pd(a, b, c); }
TX_OP V8 lesser(V8 a, V8 b) { return _mm512_min_pd(b, a); }
TX_OP Mask less(V8 a, V8 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
TX_OP Mask same(V8 a, V8 b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
TX_OP Mask both(Mask a, Mask b) { return a & b; }
TX_OP Mask either(Mask a, Mask b) { return a | b; }
TX_OP V8 choose(Mask m, V8 a, V8 b) { return _mm512_mask_blend_pd(m, b, a); }

}  // namespace
}  // namespace torchext::levels

#include "priced_impl.h"

namespace torchext::levels {

const TileKernels tiles_avx512 = kTiles;

}  // namespace torchext::levels
