// Exact sums of 8-bit products for AVX2, and the packed lines of tile4. From *_avx2.cpp only.
//
// vpmaddubsw saturates on unsigned T times signed q. It gets |q| and T' = (T - 128 if q >= 0, 127 -
// T if q < 0) instead, both exact in 8 bits: |q| T' = q (T - 128) or q (T - 127), two products of
// which fit int16. The missing multiple of q is the same for all rows (or columns) and is added at
// the end. T below 128 (affine codes of at most 7 bits) needs none of this, and several sums of two
// products fit int16 before they are widened.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "../../linear/sgd_kernels.h"
#include "../../linear/tile_prefetch.h"
#include "../../linear/unroll.h"

namespace torchext::cpu {
namespace {

using V = __m256i;

TX_INL V load32(const void* p) { return _mm256_loadu_si256(static_cast<const V*>(p)); }
TX_INL V twice16(const void* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
TX_INL V every4(const void* p) {
  int32_t four;
  // NOLINTNEXTLINE(clang-analyzer-unix.cstring.UninitializedRead): follows an empty column range
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}
TX_INL void store32(void* p, V v) { _mm256_storeu_si256(static_cast<V*>(p), v); }
TX_INL V bytes(int b) { return _mm256_set1_epi8(static_cast<char>(b)); }

/// Sums of vpmaddubsw that fit int16 for codes of B bits as they are; 0: none, take T' and |q|.
template <int B, bool Table>
constexpr int kDeep = Table || B == 8 ? 0 : 32767 / (2 * ((1 << B) - 1) * 127);

/// The mask that turns T into T' for bytes q, whatever T is: 0x80, or 0xFF ^ 0x80.
TX_INL V flip_of(V q) { return _mm256_xor_si256(_mm256_cmpgt_epi8(V{}, q), bytes(0x80)); }

/// What T' leaves out: sum of q*128 (q >= 0) or q*127 (q < 0).
TX_INL int32_t missing(const int8_t* q, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += q[i] * (q[i] >= 0 ? 128 : 127);
  return sum;
}

TX_INL V widen(V pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

/// acc + the four products in every dword, of T' and |q|.
TX_INL V add_products(V acc, V t, V size) {
  return _mm256_add_epi32(acc, widen(_mm256_maddubs_epi16(size, t)));
}

/// The field at bit FROM of every byte, WIDTH bits, or-ed into `code` at bit TO.
template <int FROM, int TO, int WIDTH>
TX_INL V field(V v, V code) {
  if constexpr (FROM > TO) v = _mm256_srli_epi16(v, FROM - TO);
  if constexpr (FROM < TO) v = _mm256_slli_epi16(v, TO - FROM);
  return _mm256_or_si256(code, _mm256_and_si256(v, bytes(((1 << WIDTH) - 1) << TO)));
}

/// 4 x 4 byte transposition inside 128-bit lanes.
TX_INL V byte_order() {
  return _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
}

/// The packed lines of one (tile, group): byte 4r + c of a vector is row r of 8 and column c.
template <int B>
struct Lines {
  static constexpr bool kFour = B < 8 && (B & 4) != 0, kTwo = (B & 2) != 0, kOne = (B & 1) != 0;
  static constexpr int kTwoAt = kFour ? 4 : 0, kOneAt = kTwoAt + (kTwo ? 2 : 0),
                       kCount = B == 8 ? 8 : kOneAt + (kOne ? 1 : 0);
  V v[kCount];

  TX_INL Lines load(const uint8_t* p) {
    Lines l;
    repeat<kCount>([&](auto i) TX_LAMBDA { l.v[i.value] = load32(p + 32 * i.value); });
    return l;
  }

  /// Codes of rows 8R .. 8R+7 where they lie, with the bits of `id` added.
  template <int R>
  TX_INL V rows(const Lines& l, V id) {
    constexpr int line = R / 2, half = R % 2;
    if constexpr (B == 8) return l.v[R];
    V code = id;
    if constexpr (kFour) code = field<4 * (line % 2), 0, 4>(l.v[2 * (line / 2) + half], code);
    if constexpr (kTwo) code = field<2 * line, kTwoAt, 2>(l.v[kTwoAt + half], code);
    if constexpr (kOne) code = field<R, B - 1, 1>(l.v[kOneAt], code);
    return code;
  }
};

/// The next lines of the stream whose turn it is: B of 32 bytes have been read.
#define TX_PREFETCH_TILE(ahead, h, due, offset) TX_PREFETCH_DUE(ahead, h, due, B, offset)

/// One block of columns of MO models: |w| and the flips of T, and where they begin.
constexpr int64_t kBlockGroups = 64;

template <int MO>
struct ModelBlock {
  alignas(32) int8_t size[MO][4 * kBlockGroups], flip[MO][4 * kBlockGroups];

  TX_INL void read(ModelBlock& m, const int8_t* wq, int64_t stride, int64_t groups) {
    for (int o = 0; o < MO; ++o) {
      for (int64_t i = 0; i < 4 * groups; i += 32) {  // readable: columns are padded to 64
        const V w = load32(wq + o * stride + i);
        store32(m.size[o] + i, _mm256_abs_epi8(w));
        store32(m.flip[o] + i, flip_of(w));
      }
    }
  }
};

/// Residuals of a chunk in the order in which a kernel meets the rows: |e| and the flips, or e
/// itself if kDeep.
template <int KEEPS>
struct Residuals {
  V size[KEEPS], flip[KEEPS];

  TX_INL void put(Residuals& r, int at, V e, bool plain) {
    r.size[at] = plain ? e : _mm256_abs_epi8(e);
    r.flip[at] = flip_of(e);
  }
};

TX_INL void add_columns(int32_t* sums, __m128i sum, int32_t base, bool add) {
  auto* to = reinterpret_cast<__m128i*>(sums);
  sum = _mm_add_epi32(sum, _mm_set1_epi32(base));
  if (add) sum = _mm_add_epi32(sum, _mm_loadu_si128(to));
  _mm_storeu_si128(to, sum);
}

}  // namespace
}  // namespace torchext::cpu
