// Passes over keys, avx512: 16 at a time.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../../levels/key_passes.h"

namespace torchext::levels {
namespace {

#define TX_OP static inline __attribute__((always_inline))

constexpr size_t kLanes = 16;
using Keys = __m512i;

TX_OP __m512 load(const float* x) { return _mm512_loadu_ps(x); }
/// The first `count` values, and then the first one again.
TX_OP __m512 load_first(const float* x, size_t count) {
  const auto in = static_cast<__mmask16>((1u << count) - 1);
  return _mm512_mask_loadu_ps(_mm512_set1_ps(*x), in, x);
}
TX_OP Keys keys_of(__m512 x) {
  const Keys u = _mm512_castps_si512(_mm512_add_ps(x, _mm512_setzero_ps()));
  const Keys flip = _mm512_or_si512(_mm512_srai_epi32(u, 31), _mm512_set1_epi32(INT32_MIN));
  return _mm512_xor_si512(u, flip);
}
TX_OP Keys splat(uint32_t key) { return _mm512_set1_epi32(static_cast<int32_t>(key)); }
TX_OP Keys lesser(Keys a, Keys b) { return _mm512_min_epu32(a, b); }
TX_OP Keys greater(Keys a, Keys b) { return _mm512_max_epu32(a, b); }
TX_OP uint32_t least(Keys a) { return _mm512_reduce_min_epu32(a); }
TX_OP uint32_t most(Keys a) { return _mm512_reduce_max_epu32(a); }
TX_OP void store_upper(uint16_t* to, Keys keys) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(to),
                     _mm512_cvtepi32_epi16(_mm512_srli_epi32(keys, 16)));
}
TX_OP void store_pairs(uint64_t* to, __m256i offset, __m256i square) {
  const __m512i one = _mm512_set1_epi64(int64_t{kOneKey});
  const __m512i first = _mm512_add_epi64(_mm512_cvtepu32_epi64(offset), one),
                second = _mm512_cvtepu32_epi64(square);
  const __m512i low = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0),
                high = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
  _mm512_store_si512(to, _mm512_permutex2var_epi64(first, low, second));
  _mm512_store_si512(to + 8, _mm512_permutex2var_epi64(first, high, second));
}
TX_OP void store_terms(Keys keys, const uint32_t* map, uint32_t* bins, uint64_t* terms) {
  const __m512i entry = _mm512_i32gather_epi32(_mm512_srli_epi32(keys, 16), map, 4),
                shift = _mm512_and_si512(entry, _mm512_set1_epi32(31)),
                low = _mm512_and_si512(keys, _mm512_set1_epi32(0xFFFF)),
                within = _mm512_srlv_epi32(low, shift),
                offset = _mm512_sub_epi32(low, _mm512_sllv_epi32(within, shift)),
                square = _mm512_mullo_epi32(offset, offset);
  _mm512_store_si512(bins, _mm512_add_epi32(_mm512_srli_epi32(entry, 5), within));
  store_pairs(terms, _mm512_castsi512_si256(offset), _mm512_castsi512_si256(square));
  store_pairs(terms + 16, _mm512_extracti64x4_epi64(offset, 1),
              _mm512_extracti64x4_epi64(square, 1));
}

}  // namespace
}  // namespace torchext::levels

#include "keys_impl.h"

namespace torchext::levels {

const KeyPasses key_passes_avx512{count_keys, sum_keys};

}  // namespace torchext::levels
