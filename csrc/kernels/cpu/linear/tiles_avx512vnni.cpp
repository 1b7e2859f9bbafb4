// Integer products with tile4 codes, AVX-512 VBMI + VNNI.
//
// A 64-byte line holds 16 rows x 4 columns per field. Forward: a table look-up turns the bytes of a
// field into T, and one vpdpbusd with the group's four model bytes adds the four columns of each
// row: accumulators are rows, nothing is summed across lanes. Backward: one in-lane byte shuffle of
// the packed line turns dwords from (4 columns of a row) into (4 rows of a column), then the same
// look-up meets the residuals of the four rows. vpdpbusd does not saturate: the sums are exact.
#include <immintrin.h>

#include <cstring>

#include "../../linear/sgd_kernels.h"
#include "../../linear/unroll.h"

namespace torchext::cpu {
namespace {

using V = __m512i;

constexpr int kOr = 0xEA;  // vpternlog: (a & b) | c

// To the second-level cache: a batch is larger than the first, and a fetch to it holds one of its
// few miss buffers until memory answers (docs/benchmarks/linear.md has what that costs on Zen 4).
// A macro: g++ 12 drops calls of a function that only prefetches.
#define TX_PREFETCH_PAIR(ahead, h, offset)                                           \
  do {                                                                               \
    const uint8_t* tx_p =                                                            \
        (ahead).stream[(h) & mask] + (offset) + ((h) >> (ahead).log2_streams) * 128; \
    _mm_prefetch(reinterpret_cast<const char*>(tx_p), _MM_HINT_T1);                  \
    _mm_prefetch(reinterpret_cast<const char*>(tx_p + 64), _MM_HINT_T1);             \
    ++(h);                                                                           \
  } while (false)

TX_INL V line(const uint8_t* p) { return _mm512_loadu_si512(p); }
TX_INL V bytes(int b) { return _mm512_set1_epi8(static_cast<char>(b)); }

/// v << k, or v >> -k: the caller masks what crosses bytes.
template <int K>
TX_INL V shift(V v) {
  if constexpr (K > 0) return _mm512_slli_epi32(v, K);
  if constexpr (K < 0) return _mm512_srli_epi32(v, -K);
  return v;
}

/// The half line of a 1-bit plane, spread so that field q of row 16q + r is bit 2q of byte 4r + c.
TX_INL V spread_bits(const uint8_t* p) {
  const V both = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  const V by = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(1), 1);
  return _mm512_and_si512(_mm512_srlv_epi16(both, by), bytes(0x55));
}

/// Constants of a pass: Transposed is the backward pass.
template <int B, bool Transposed>
struct Columns {
  V id;             // column << B in every byte, where a look-up wants it
  V order;          // 4 x 4 byte transposition inside 128-bit lanes
  __mmask64 at[4];  // bytes of each column

  struct Bytes {
    alignas(64) uint8_t id[64] = {}, order[64] = {};
    __mmask64 at[4] = {};
  };
  static constexpr Bytes bytes(bool table) {
    Bytes k;
    for (int i = 0; i < 64; ++i) {
      const int column = Transposed ? i % 16 / 4 : i % 4;
      k.id[i] = static_cast<uint8_t>(table && B <= 6 ? column << B : 0);
      k.order[i] = static_cast<uint8_t>(4 * (i % 4) + i % 16 / 4);
      k.at[column] |= __mmask64{1} << i;
    }
    return k;
  }
  template <bool Table>
  TX_INL Columns make() {
    static constexpr Bytes k = bytes(Table);
    return {line(k.id), line(k.order), {k.at[0], k.at[1], k.at[2], k.at[3]}};
  }
};

/// The packed lines of one group and tile.
template <int B>
struct Packed {
  V l[4];

  template <bool Transposed>
  TX_INL Packed load(const uint8_t* p, V order) {
    Packed k;
    if constexpr (B == 1) k.l[0] = spread_bits(p);
    if constexpr (B == 2) k.l[0] = line(p);
    if constexpr (B == 3) k.l[0] = line(p), k.l[1] = spread_bits(p + 64);
    if constexpr (B >= 4) k.l[0] = line(p), k.l[1] = line(p + 64);
    if constexpr (B == 5) k.l[2] = spread_bits(p + 128);
    if constexpr (B == 6 || B == 7) k.l[2] = line(p + 128);
    if constexpr (B == 7) k.l[3] = spread_bits(p + 192);
    if constexpr (B == 8) k.l[2] = line(p + 128), k.l[3] = line(p + 192);
    constexpr int count = B <= 2 ? 1 : B <= 4 ? 2 : B <= 6 ? 3 : 4;
    if constexpr (Transposed) {
      for (int i = 0; i < count; ++i) k.l[i] = _mm512_shuffle_epi8(k.l[i], order);
    }
    return k;
  }

  /// Codes of rows 16Q .. 16Q+15, with the bits of `id` added.
  template <int Q>
  TX_INL V codes(const Packed& k, V id) {
    if constexpr (B == 8) return k.l[Q];
    if constexpr (B == 1)
      return _mm512_ternarylogic_epi32(shift<-2 * Q>(k.l[0]), bytes(1), id, kOr);
    if constexpr (B == 2 || B == 3) {
      const V c = _mm512_ternarylogic_epi32(shift<-2 * Q>(k.l[0]), bytes(3), id, kOr);
      if constexpr (B == 2) return c;
      return _mm512_ternarylogic_epi32(shift<2 - 2 * Q>(k.l[1]), bytes(4), c, kOr);
    }
    const V c = _mm512_ternarylogic_epi32(shift<-4 * (Q % 2)>(k.l[Q / 2]), bytes(15), id, kOr);
    if constexpr (B == 5)
      return _mm512_ternarylogic_epi32(shift<4 - 2 * Q>(k.l[2]), bytes(16), c, kOr);
    if constexpr (B == 6)
      return _mm512_ternarylogic_epi32(shift<4 - 2 * Q>(k.l[2]), bytes(48), c, kOr);
    if constexpr (B == 7) {
      const V d = _mm512_ternarylogic_epi32(shift<4 - 2 * Q>(k.l[2]), bytes(48), c, kOr);
      return _mm512_ternarylogic_epi32(shift<6 - 2 * Q>(k.l[3]), bytes(64), d, kOr);
    }
    return c;
  }
};

/// One group's table of one set: 4 columns of 2^B bytes.
template <int B, bool Table>
struct Lookup {
  const uint8_t* t;
  V first, second;  // what fits registers

  TX_INL Lookup load(const uint8_t* t) {
    Lookup k{};
    k.t = t;
    if constexpr (Table && B <= 2) {
      k.first = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(t)));
    } else if constexpr (Table && B <= 5) {
      k.first = line(t);
      if constexpr (B == 5) k.second = line(t + 64);
    }
    return k;
  }

  TX_INL V pair(const uint8_t* t, V index) {
    return _mm512_permutex2var_epi8(line(t), index, line(t + 64));
  }

  TX_INL V find(const Lookup& k, V index, const __mmask64* at) {
    if constexpr (!Table) return index;
    if constexpr (B <= 2) return _mm512_shuffle_epi8(k.first, index);
    if constexpr (B == 3 || B == 4) return _mm512_permutexvar_epi8(index, k.first);
    if constexpr (B == 5) return _mm512_permutex2var_epi8(k.first, index, k.second);
    if constexpr (B == 6)
      return _mm512_mask_blend_epi8(at[2] | at[3], pair(k.t, index), pair(k.t + 128, index));
    V found = index;
    for (int c = 0; c < 4 && B >= 7; ++c) {
      const uint8_t* t = k.t + (c << B);
      found = _mm512_mask_blend_epi8(at[c], found, pair(t, index));
      if constexpr (B == 8) {
        found =
            _mm512_mask_blend_epi8(at[c] & _mm512_movepi8_mask(index), found, pair(t + 128, index));
      }
    }
    return found;
  }
};

/// Widths that get every unrolled form; the others are instantiated once, which keeps this file
/// quick to compile.
template <int B>
constexpr bool kHot = B == 2 || B == 4 || B == 8;

/// NT tiles at once for MO outputs: 4*NT*MO*SETS accumulators of 16 rows.
template <int B, bool Table, int NT, int MO, int SETS>
void forward_tiles(const TileArgs& a, int tile, const int8_t* wq, int32_t* dots, int64_t first,
                   const Prefetch& pf) {
  V acc[NT * 4 * SETS * MO];
  repeat<NT * 4 * SETS * MO>([&](auto i) TX_LAMBDA { acc[i.value] = _mm512_setzero_si512(); });
  const auto columns = Columns<B, false>::template make<Table>();
  const uint8_t* codes = a.codes + tile * a.tile_bytes + a.g0 * 32 * B;
  const uint8_t* entries = Table ? a.table + ((4 * a.g0) << B) : nullptr;
  const Prefetch ahead = pf;
  const int64_t mask = (int64_t{1} << ahead.log2_streams) - 1, tile_bytes = a.tile_bytes,
                set_bytes = a.set_bytes, cols = a.cols;
  int64_t h = first, due = 0;
  for (int64_t g = a.g0, end = a.g1; g < end; ++g, codes += 32 * B, entries += 4 << B) {
    V w[MO];
    Lookup<B, Table> table[SETS];
    repeat<MO>([&](auto o) TX_LAMBDA {
      int32_t four;
      std::memcpy(&four, wq + o.value * cols + 4 * g, 4);
      w[o.value] = _mm512_set1_epi32(four);
    });
    repeat<SETS>([&](auto s) TX_LAMBDA {
      table[s.value] = Lookup<B, Table>::load(entries + s.value * set_bytes);
    });
    repeat<NT>([&](auto t) TX_LAMBDA {
      // Half of what is read is fetched ahead here, half in the backward pass: two lines per four.
      if constexpr (NT * B % 8 == 0) {
        for (int i = t.value * B / 8; i < (t.value + 1) * B / 8; ++i) TX_PREFETCH_PAIR(ahead, h, 0);
      } else {
        for (due += B; due >= 8; due -= 8) TX_PREFETCH_PAIR(ahead, h, 0);
      }
      const Packed<B> packed =
          Packed<B>::template load<false>(codes + t.value * tile_bytes, columns.order);
      repeat<4>([&](auto q) TX_LAMBDA {
        const V index = Packed<B>::template codes<q.value>(packed, columns.id);
        repeat<SETS>([&](auto s) TX_LAMBDA {
          const V value = Lookup<B, Table>::find(table[s.value], index, columns.at);
          repeat<MO>([&](auto o) TX_LAMBDA {
            V& sum = acc[((t.value * 4 + q.value) * SETS + s.value) * MO + o.value];
            sum = _mm512_dpbusd_epi32(sum, value, w[o.value]);
          });
        });
      });
    });
  }
  repeat<NT * 4 * SETS * MO>([&](auto i) TX_LAMBDA {
    constexpr int o = i.value % MO, s = i.value / MO % SETS, q = i.value / (MO * SETS) % 4,
                  t = i.value / (MO * SETS * 4);
    _mm512_storeu_si512(dots + (o * SETS + s) * a.rows + 64 * (tile + t) + 16 * q, acc[i.value]);
  });
}

template <int B, bool Table, int MO, int SETS>
void forward_outputs(const TileArgs& a, const int8_t* wq, int32_t* dots, const Prefetch& ahead) {
  constexpr int most = kHot<B> ? 4 / (MO * SETS) : 1;
  const int64_t pairs = (a.g1 - a.g0) * B / 8;  // prefetched per tile
  int t = 0;
  if constexpr (most >= 4) {
    for (; t + 4 <= a.tiles; t += 4)
      forward_tiles<B, Table, 4, MO, SETS>(a, t, wq, dots, t * pairs, ahead);
  }
  if constexpr (most >= 2) {
    for (; t + 2 <= a.tiles; t += 2)
      forward_tiles<B, Table, 2, MO, SETS>(a, t, wq, dots, t * pairs, ahead);
  }
  for (; t < a.tiles; ++t) forward_tiles<B, Table, 1, MO, SETS>(a, t, wq, dots, t * pairs, ahead);
}

template <int B, bool Table, int SETS>
void forward_all(const TileArgs& a, const int8_t* wq, int32_t* dots, const Prefetch& ahead) {
  int o = 0;
  if constexpr (SETS == 1 && B <= 4) {
    for (; o + 4 <= a.outputs; o += 4) {
      forward_outputs<B, Table, 4, SETS>(a, wq + o * a.cols, dots + o * a.rows, ahead);
    }
  }
  for (; o < a.outputs; ++o) {
    forward_outputs<B, Table, 1, SETS>(a, wq + o * a.cols, dots + o * SETS * a.rows, ahead);
  }
}

/// Dword (group k, column i) of the result: the sum over the four 128-bit lanes of s[k].
TX_INL V add_lanes(V a, V b, V c, V d) {
  const V s = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  const V t = _mm512_add_epi32(_mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(s, t, 0x88), _mm512_shuffle_i32x4(s, t, 0xdd));
}

/// Column sums for MO outputs; NT tiles, or a.tiles of them if NT is 0.
template <int B, bool Table, int NT, int MO, int P, int BOOKS>
void backward_outputs(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                      const Prefetch& pf) {
  const int tiles = NT != 0 ? NT : a.tiles;
  V e[MO * BOOKS *
      16];  // lane l of vector 4t + q: the residuals of rows 64t + 16q + 4l .. +3 in every dword
  const V spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  for (int k = 0; k < MO * BOOKS; ++k) {
    for (int i = 0; i < 4 * tiles; ++i) {
      const auto* from = reinterpret_cast<const __m128i*>(eq + k * a.rows + 16 * i);
      e[16 * k + i] =
          _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(_mm_loadu_si128(from)));
    }
  }
  const auto columns = Columns<B, true>::template make<Table>();
  const Prefetch ahead = pf;
  const int64_t mask = (int64_t{1} << ahead.log2_streams) - 1, tile_bytes = a.tile_bytes,
                set_bytes = a.set_bytes, end = a.g1, cols = a.cols;
  const uint8_t* const base = a.codes;
  const uint8_t* const entries = a.table;
  int64_t h = 0, due = 0;
  for (int64_t g0 = a.g0; g0 < end; g0 += 4) {
    V total[4 * P * MO];
    repeat<4>([&](auto k) TX_LAMBDA {
      const int64_t g = g0 + k.value;
      V acc[P * MO * 2];  // two chains each: the latency of vpdpbusd
      repeat<P * MO * 2>([&](auto i) TX_LAMBDA { acc[i.value] = _mm512_setzero_si512(); });
      if (g < end) {
        Lookup<B, Table> table[P * BOOKS];
        repeat<P * BOOKS>([&](auto s) TX_LAMBDA {
          table[s.value] = Lookup<B, Table>::load(
              Table ? entries + s.value * set_bytes + ((4 * g) << B) : nullptr);
        });
        const uint8_t* codes = base + g * 32 * B;
        auto one = [&]([[maybe_unused]] auto fixed, int t) TX_LAMBDA {
          if constexpr (NT != 0 && NT * B % 8 == 0) {
            constexpr int T = fixed.value;
            for (int i = T * B / 8; i < (T + 1) * B / 8; ++i)
              TX_PREFETCH_PAIR(ahead, h, ahead.half);
          } else {
            for (due += B; due >= 8; due -= 8) TX_PREFETCH_PAIR(ahead, h, ahead.half);
          }
          const Packed<B> packed =
              Packed<B>::template load<true>(codes + t * tile_bytes, columns.order);
          repeat<4>([&](auto q) TX_LAMBDA {
            const V index = Packed<B>::template codes<q.value>(packed, columns.id);
            repeat<P * BOOKS>([&](auto s) TX_LAMBDA {
              constexpr int plane = s.value / BOOKS, book = s.value % BOOKS;
              const V value = Lookup<B, Table>::find(table[s.value], index, columns.at);
              repeat<MO>([&](auto o) TX_LAMBDA {
                V& sum = acc[(plane * MO + o.value) * 2 + (q.value + book) % 2];
                sum = _mm512_dpbusd_epi32(
                    sum, value, e[16 * (o.value * BOOKS + BOOKS - 1 - book) + 4 * t + q.value]);
              });
            });
          });
        };
        if constexpr (NT != 0) {
          repeat<NT>([&](auto t) TX_LAMBDA { one(t, t.value); });
        } else {
          for (int t = 0; t < tiles; ++t) one(Index<0>{}, t);
        }
      }
      repeat<P * MO>([&](auto i) TX_LAMBDA {
        total[4 * i.value + k.value] = _mm512_add_epi32(acc[2 * i.value], acc[2 * i.value + 1]);
      });
    });
    repeat<P * MO>([&](auto i) TX_LAMBDA {
      constexpr int plane = i.value / MO, o = i.value % MO, at = 4 * i.value;
      V sum = add_lanes(total[at], total[at + 1], total[at + 2], total[at + 3]);
      int32_t* to = sums + (o * P + plane) * cols + 4 * g0;
      if (add) sum = _mm512_add_epi32(sum, _mm512_loadu_si512(to));
      _mm512_storeu_si512(to, sum);
    });
  }
}

template <int B, bool Table, int P, int BOOKS>
void backward_all(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                  const Prefetch& ahead) {
  int o = 0;
  if constexpr (P * BOOKS == 1 && B <= 4) {
    for (; o + 4 <= a.outputs; o += 4) {
      backward_outputs<B, Table, 0, 4, P, BOOKS>(a, eq + o * BOOKS * a.rows, sums + o * P * a.cols,
                                                 add, ahead);
    }
  }
  for (; o < a.outputs; ++o) {
    const int8_t* from = eq + o * BOOKS * a.rows;
    int32_t* to = sums + o * P * a.cols;
    if (kHot<B> && a.tiles == 4) {
      backward_outputs<B, Table, kHot<B> ? 4 : 0, 1, P, BOOKS>(a, from, to, add, ahead);
    } else {
      backward_outputs<B, Table, 0, 1, P, BOOKS>(a, from, to, add, ahead);
    }
  }
}

template <int B>
void forward_bits(const TileArgs& a, const int8_t* wq, int32_t* dots, const Prefetch& ahead) {
  if (a.table == nullptr) return forward_all<B, false, 1>(a, wq, dots, ahead);
  switch (a.planes * a.books) {
    case 1: return forward_all<B, true, 1>(a, wq, dots, ahead);
    case 2: return forward_all<B, true, 2>(a, wq, dots, ahead);
    default: return forward_all<B, true, 4>(a, wq, dots, ahead);
  }
}

template <int B>
void backward_bits(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                   const Prefetch& ahead) {
  if (a.table == nullptr) return backward_all<B, false, 1, 1>(a, eq, sums, add, ahead);
  if (a.books == 1) {
    return a.planes == 1 ? backward_all<B, true, 1, 1>(a, eq, sums, add, ahead)
                         : backward_all<B, true, 2, 1>(a, eq, sums, add, ahead);
  }
  return a.planes == 1 ? backward_all<B, true, 1, 2>(a, eq, sums, add, ahead)
                       : backward_all<B, true, 2, 2>(a, eq, sums, add, ahead);
}

}  // namespace

void tile_forward_avx512vnni(const TileArgs& a, const int8_t* wq, int32_t* dots,
                             const Prefetch& ahead) noexcept {
  switch (a.bits) {
    case 1: return forward_bits<1>(a, wq, dots, ahead);
    case 2: return forward_bits<2>(a, wq, dots, ahead);
    case 3: return forward_bits<3>(a, wq, dots, ahead);
    case 4: return forward_bits<4>(a, wq, dots, ahead);
    case 5: return forward_bits<5>(a, wq, dots, ahead);
    case 6: return forward_bits<6>(a, wq, dots, ahead);
    case 7: return forward_bits<7>(a, wq, dots, ahead);
    default: return forward_bits<8>(a, wq, dots, ahead);
  }
}

void tile_backward_avx512vnni(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                              const Prefetch& ahead) noexcept {
  switch (a.bits) {
    case 1: return backward_bits<1>(a, eq, sums, add, ahead);
    case 2: return backward_bits<2>(a, eq, sums, add, ahead);
    case 3: return backward_bits<3>(a, eq, sums, add, ahead);
    case 4: return backward_bits<4>(a, eq, sums, add, ahead);
    case 5: return backward_bits<5>(a, eq, sums, add, ahead);
    case 6: return backward_bits<6>(a, eq, sums, add, ahead);
    case 7: return backward_bits<7>(a, eq, sums, add, ahead);
    default: return backward_bits<8>(a, eq, sums, add, ahead);
  }
}

}  // namespace torchext::cpu
