// Errors of rounding to levels, avx2: 4 values at a time.
#include <immintrin.h>

#include <cstdint>

namespace torchext::levels {
namespace {

constexpr int kLanes = 4;
typedef double V __attribute__((vector_size(32)));
typedef int64_t I __attribute__((vector_size(32)));

/// Reads base[i] for every lane.
struct Gather {
  const double* base;
  explicit inline __attribute__((always_inline)) Gather(const double* p) : base(p) {}
  inline __attribute__((always_inline)) V at(I i) const {
    return _mm256_i64gather_pd(base, reinterpret_cast<__m256i>(i), 8);
  }
};

}  // namespace
}  // namespace torchext::levels

#include "error_simd.h"

namespace torchext::levels {

void add_errors_avx2(const WeightedValues& v, const LevelTable& table, bool stochastic,
                     int64_t begin, int64_t end, Errors* out) noexcept {
  add_all<Gather>(v, table, stochastic, begin, end, out);
}

}  // namespace torchext::levels
