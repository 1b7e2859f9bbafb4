// Passes over keys, avx2: 8 at a time.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../../levels/key_passes.h"

namespace torchext::levels {
namespace {

#define TX_OP static inline __attribute__((always_inline))

constexpr size_t kLanes = 8;
using Keys = __m256i;

TX_OP __m256 load(const float* x) { return _mm256_loadu_ps(x); }
/// The first `count` values, and then the first one again.
TX_OP __m256 load_first(const float* x, size_t count) {
  alignas(32) float all[kLanes];
  for (size_t i = 0; i < kLanes; ++i) all[i] = x[i < count ? i : 0];
  return _mm256_load_ps(all);
}
TX_OP Keys keys_of(__m256 x) {
  const Keys u = _mm256_castps_si256(_mm256_add_ps(x, _mm256_setzero_ps()));
  const Keys flip = _mm256_or_si256(_mm256_srai_epi32(u, 31), _mm256_set1_epi32(INT32_MIN));
  return _mm256_xor_si256(u, flip);
}
TX_OP Keys splat(uint32_t key) { return _mm256_set1_epi32(static_cast<int32_t>(key)); }
TX_OP Keys lesser(Keys a, Keys b) { return _mm256_min_epu32(a, b); }
TX_OP Keys greater(Keys a, Keys b) { return _mm256_max_epu32(a, b); }
TX_OP uint32_t least(Keys a) {
  alignas(32) uint32_t all[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(all), a);
  for (const uint32_t key : all) all[0] = key < all[0] ? key : all[0];
  return all[0];
}
TX_OP uint32_t most(Keys a) { return ~least(_mm256_xor_si256(a, _mm256_set1_epi32(-1))); }
TX_OP void store_upper(uint16_t* to, Keys keys) {
  const __m256i upper = _mm256_srli_epi32(keys, 16);
  const __m256i packed = _mm256_packus_epi32(upper, upper);
  _mm_store_si128(reinterpret_cast<__m128i*>(to),
                  _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}
TX_OP void store_pairs(uint64_t* to, __m128i offset, __m128i square) {
  const __m256i one = _mm256_set1_epi64x(int64_t{kOneKey});
  const __m256i first = _mm256_add_epi64(_mm256_cvtepu32_epi64(offset), one),
                second = _mm256_cvtepu32_epi64(square);
  const __m256i even = _mm256_unpacklo_epi64(first, second),
                odd = _mm256_unpackhi_epi64(first, second);
  auto* const at = reinterpret_cast<__m256i*>(to);
  _mm256_store_si256(at, _mm256_permute2x128_si256(even, odd, 0x20));
  _mm256_store_si256(at + 1, _mm256_permute2x128_si256(even, odd, 0x31));
}
TX_OP void store_terms(Keys keys, const uint32_t* map, uint32_t* bins, uint64_t* terms) {
  const __m256i entry = _mm256_i32gather_epi32(reinterpret_cast<const int*>(map),
                                               _mm256_srli_epi32(keys, 16), 4),
                shift = _mm256_and_si256(entry, _mm256_set1_epi32(31)),
                low = _mm256_and_si256(keys, _mm256_set1_epi32(0xFFFF)),
                within = _mm256_srlv_epi32(low, shift),
                offset = _mm256_sub_epi32(low, _mm256_sllv_epi32(within, shift)),
                square = _mm256_mullo_epi32(offset, offset);
  _mm256_store_si256(reinterpret_cast<__m256i*>(bins),
                     _mm256_add_epi32(_mm256_srli_epi32(entry, 5), within));
  store_pairs(terms, _mm256_castsi256_si128(offset), _mm256_castsi256_si128(square));
  store_pairs(terms + 8, _mm256_extracti128_si256(offset, 1), _mm256_extracti128_si256(square, 1));
}

}  // namespace
}  // namespace torchext::levels

#include "keys_impl.h"

namespace torchext::levels {

const KeyPasses key_passes_avx2{count_keys, sum_keys};

}  // namespace torchext::levels
