// Level tiles, avx2: eight lanes are two registers.
#include <immintrin.h>

#include <cstdint>

namespace torchext::levels {
namespace {

struct V8 {
  __m256d a, b;
};
using Mask = V8;
#define TX_OP static inline __attribute__((always_inline))
TX_OP V8 load(const double* p) { return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
TX_OP V8 gather(const double* p, int64_t stride) {
  const __m256i lane = _mm256_set_epi64x(3 * stride, 2 * stride, stride, 0);
  return {_mm256_i64gather_pd(p, lane, 8), _mm256_i64gather_pd(p + 4 * stride, lane, 8)};
}
TX_OP void store(double* p, V8 v) {
  _mm256_storeu_pd(p, v.a);
  _mm256_storeu_pd(p + 4, v.b);
}
TX_OP void store_index(uint32_t* p, V8 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvttpd_epi32(v.a));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 4), _mm256_cvttpd_epi32(v.b));
}
TX_OP V8 splat(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
TX_OP V8 add(V8 x, V8 y) { return {_mm256_add_pd(x.a, y.a), _mm256_add_pd(x.b, y.b)}; }
TX_OP V8 sub(V8 x, V8 y) { return {_mm256_sub_pd(x.a, y.a), _mm256_sub_pd(x.b, y.b)}; }
TX_OP V8 mul(V8 x, V8 y) { return {_mm256_mul_pd(x.a, y.a), _mm256_mul_pd(x.b, y.b)}; }
TX_OP V8 div(V8 x, V8 y) { return {_mm256_div_pd(x.a, y.a), _mm256_div_pd(x.b, y.b)}; }
TX_OP V8 fma(V8 x, V8 y, V8 z) {
  return {_mm256_fmadd_pd(x.a, y.a, z.a), _mm256_fmadd_pd(x.b, y.b, z.b)};
}
TX_OP V8 lesser(V8 x, V8 y) { return {_mm256_min_pd(y.a, x.a), _mm256_min_pd(y.b, x.b)}; }
TX_OP Mask less(V8 x, V8 y) {
  return {_mm256_cmp_pd(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_pd(x.b, y.b, _CMP_LT_OQ)};
}
TX_OP Mask same(V8 x, V8 y) {
  return {_mm256_cmp_pd(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_pd(x.b, y.b, _CMP_EQ_OQ)};
}
TX_OP Mask both(Mask x, Mask y) { return {_mm256_and_pd(x.a, y.a), _mm256_and_pd(x.b, y.b)}; }
TX_OP Mask either(Mask x, Mask y) { return {_mm256_or_pd(x.a, y.a), _mm256_or_pd(x.b, y.b)}; }
TX_OP V8 choose(Mask m, V8 x, V8 y) {
  return {_mm256_blendv_pd(y.a, x.a, m.a), _mm256_blendv_pd(y.b, x.b, m.b)};
}

}  // namespace
}  // namespace torchext::levels

#include "priced_impl.h"

namespace torchext::levels {

const TileKernels tiles_avx2 = kTiles;

}  // namespace torchext::levels
