// Errors of rounding to levels, avx512: 8 values at a time.
#include <immintrin.h>

#include <cstdint>

namespace torchext::levels {
namespace {

constexpr int kLanes = 8;
typedef double V __attribute__((vector_size(64)));
typedef int64_t I __attribute__((vector_size(64)));

#define TX_OP inline __attribute__((always_inline))

/// Reads base[i] for every lane.
struct Gather {
  const double* base;
  explicit TX_OP Gather(const double* p) : base(p) {}
  TX_OP V at(I i) const { return _mm512_i64gather_pd(reinterpret_cast<__m512i>(i), base, 8); }
};

/// The same from registers, for i < 16.
struct Two {
  V low, high;
  explicit TX_OP Two(const double* p) : low(_mm512_loadu_pd(p)), high(_mm512_loadu_pd(p + 8)) {}
  TX_OP V at(I i) const { return _mm512_permutex2var_pd(low, reinterpret_cast<__m512i>(i), high); }
};

/// And for i < 32.
struct Four {
  Two low, high;
  explicit TX_OP Four(const double* p) : low(p), high(p + 16) {}
  TX_OP V at(I i) const { return i < 16 ? low.at(i) : high.at(i); }
};

}  // namespace
}  // namespace torchext::levels

#include "error_simd.h"

namespace torchext::levels {

void add_errors_avx512(const WeightedValues& v, const LevelTable& table, bool stochastic,
                       int64_t begin, int64_t end, Errors* out) noexcept {
  if (table.width <= 16) {
    add_all<Two>(v, table, stochastic, begin, end, out);
  } else if (table.width <= 32) {
    add_all<Four>(v, table, stochastic, begin, end, out);
  } else {
    add_all<Gather>(v, table, stochastic, begin, end, out);
  }
}

}  // namespace torchext::levels
