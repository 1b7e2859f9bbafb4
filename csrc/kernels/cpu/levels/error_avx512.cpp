// Errors of rounding to levels, avx512: 8 values at a time.
#include <immintrin.h>

#include <cstdint>

namespace torchext::levels {
namespace {

constexpr int kLanes = 8;
typedef double V __attribute__((vector_size(64)));
typedef int64_t I __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) V gather(const double* base, I at) {
  return _mm512_i64gather_pd(reinterpret_cast<__m512i>(at), base, 8);
}

}  // namespace
}  // namespace torchext::levels

#include "error_simd.h"

namespace torchext::levels {

void add_errors_avx512(const WeightedValues& v, const LevelTable& table, bool stochastic,
                       int64_t begin, int64_t end, Errors* out) noexcept {
  add_all(v, table, stochastic, begin, end, out);
}

}  // namespace torchext::levels
