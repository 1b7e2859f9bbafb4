// Integer products with tile4 codes: AVX2.
//
// A look-up covers 16 entries per 128-bit lane, so the packed bytes of a line (16 rows x 4 columns)
// are first rearranged to one column per lane: two vectors, columns (0 | 2) and (1 | 3).
//
// vpmaddubsw saturates on unsigned T times signed q. It gets |q| and T' = (T - 128 if q >= 0, 127 -
// T if q < 0) instead, both exact in 8 bits: |q| T' = q (T - 128) or q (T - 127), two products of
// which fit int16. The missing multiple of q is the same for all rows (or columns) and is added at
// the end.
#include <immintrin.h>

#include <cstring>

#include "../../linear/sgd_kernels.h"
#include "../../linear/tile_prefetch.h"

namespace torchext::cpu {
namespace {

#define TX_INL static inline __attribute__((always_inline))

using V = __m256i;

/// Columns (0 | 2) and (1 | 3) of 16 rows, one byte a row.
struct Columns {
  V even, odd;
};

/// `low` holds rows 0-7 of a line and `high` rows 8-15, bytes 4r + c.
TX_INL Columns arrange(V low, V high) {
  const V order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const V halves = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  low = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(low, order), halves);
  high = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(high, order), halves);
  return {_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high)};
}

TX_INL V load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const V*>(p)); }
TX_INL V two_lanes(const uint8_t* first, const uint8_t* second) {
  return _mm256_set_m128i(_mm_loadu_si128(reinterpret_cast<const __m128i*>(second)),
                          _mm_loadu_si128(reinterpret_cast<const __m128i*>(first)));
}

/// Moves the field at bit `from` of every byte to bit `to`; the neighbours' bits are masked off
/// later.
template <int FROM, int TO>
TX_INL V move_field(V v) {
  if constexpr (FROM > TO) return _mm256_srli_epi16(v, FROM - TO);
  if constexpr (FROM < TO) return _mm256_slli_epi16(v, TO - FROM);
  return v;
}

template <int FROM, int TO, int WIDTH>
TX_INL V field(V v, V code) {
  const V mask = _mm256_set1_epi8(static_cast<char>(((1 << WIDTH) - 1) << TO));
  return _mm256_or_si256(code, _mm256_and_si256(move_field<FROM, TO>(v), mask));
}

/// The planes of rows 32*HALF .. 32*HALF+31 of one (tile, group), arranged.
template <int BITS, int HALF>
struct Group {
  static constexpr bool kOne = BITS & 1, kTwo = BITS & 2, kFour = BITS & 4;
  Columns four, two, bit, byte[2];

  TX_INL void read(Group& g, const uint8_t* p) {
    if constexpr (BITS == 8) {
      for (int u = 0; u < 2; ++u) {
        const uint8_t* line = p + 64 * (2 * HALF + u);
        g.byte[u] = arrange(load32(line), load32(line + 32));
      }
      return;
    }
    if constexpr (kFour) {
      g.four = arrange(load32(p + 64 * HALF), load32(p + 64 * HALF + 32));
      p += 128;
    }
    if constexpr (kTwo) {
      g.two = arrange(load32(p), load32(p + 32));
      p += 64;
    }
    if constexpr (kOne) {  // field f of byte 4r + c is row 8f + r
      const V v = load32(p);
      g.bit = arrange(v, _mm256_srli_epi16(v, 1));
    }
  }

  /// Codes of unit 2*HALF + U.
  template <int U>
  TX_INL Columns unit(const Group& g) {
    if constexpr (BITS == 8) return g.byte[U];
    constexpr int q = 2 * HALF + U;
    Columns c = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    if constexpr (kFour) {
      c.even = field<4 * U, 0, 4>(g.four.even, c.even);
      c.odd = field<4 * U, 0, 4>(g.four.odd, c.odd);
    }
    if constexpr (kTwo) {
      constexpr int to = kFour ? 4 : 0;
      c.even = field<2 * q, to, 2>(g.two.even, c.even);
      c.odd = field<2 * q, to, 2>(g.two.odd, c.odd);
    }
    if constexpr (kOne) {
      c.even = field<2 * q, BITS - 1, 1>(g.bit.even, c.even);
      c.odd = field<2 * q, BITS - 1, 1>(g.bit.odd, c.odd);
    }
    return c;
  }
};

/// Tables of one group; up to 16 entries a column stay in registers.
template <int BITS, bool AFFINE>
struct Table {
  static constexpr int kParts = BITS <= 4 ? 1 : 1 << (BITS - 4);  // look-ups of 16 entries
  V even, odd;
  const uint8_t* base;

  TX_INL void read(Table& t, const uint8_t* p) {
    t.base = p;
    if constexpr (!AFFINE && BITS <= 4) {
      t.even = two_lanes(p, p + (2 << BITS));
      t.odd = two_lanes(p + (1 << BITS), p + (3 << BITS));
    }
  }

  TX_INL Columns look_up(const Table& t, Columns code) {
    if constexpr (AFFINE) return code;
    if constexpr (BITS <= 4) {
      return {_mm256_shuffle_epi8(t.even, code.even), _mm256_shuffle_epi8(t.odd, code.odd)};
    }
    Columns out = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    const V low = _mm256_set1_epi8(15);
    const V part_even = _mm256_andnot_si256(low, code.even),
            part_odd = _mm256_andnot_si256(low, code.odd);
    const V in_even = _mm256_and_si256(low, code.even), in_odd = _mm256_and_si256(low, code.odd);
    for (int part = 0; part < kParts; ++part) {
      const uint8_t* p = t.base + 16 * part;
      const V here = _mm256_set1_epi8(static_cast<char>(16 * part));
      const V even = _mm256_shuffle_epi8(two_lanes(p, p + (2 << BITS)), in_even);
      const V odd = _mm256_shuffle_epi8(two_lanes(p + (1 << BITS), p + (3 << BITS)), in_odd);
      out.even =
          _mm256_or_si256(out.even, _mm256_and_si256(even, _mm256_cmpeq_epi8(part_even, here)));
      out.odd = _mm256_or_si256(out.odd, _mm256_and_si256(odd, _mm256_cmpeq_epi8(part_odd, here)));
    }
    return out;
  }
};

/// |q| and the mask that turns T into T', for bytes q.
struct Signed {
  V size, flip;
};

TX_INL Signed split_sign(V q) {
  const V negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), q);  // 0x80 ^ 0xFF = 0x7F
  return {_mm256_abs_epi8(q),
          _mm256_xor_si256(negative, _mm256_set1_epi8(static_cast<char>(0x80)))};
}

/// What split_sign left out: sum of q*128 (q >= 0) or q*127 (q < 0).
TX_INL int32_t missing(const int8_t* q, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += q[i] * (q[i] >= 0 ? 128 : 127);
  return sum;
}

/// acc += the four products in every dword.
TX_INL V add_products(V acc, V t, Signed q) {
  const V pairs = _mm256_maddubs_epi16(q.size, _mm256_xor_si256(t, q.flip));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/// Model bytes of columns 0, 1, 4, 5 | 2, 3, 6, 7 of two groups in every dword of a lane.
TX_INL V spread_model(const int8_t* first, const int8_t* second) {
  int16_t w[4];
  std::memcpy(w, first, 4);
  std::memcpy(w + 2, second, 4);
  const auto pack = [](int16_t a, int16_t b) {
    return static_cast<int>(static_cast<uint32_t>(static_cast<uint16_t>(a)) |
                            static_cast<uint32_t>(static_cast<uint16_t>(b)) << 16);
  };
  return _mm256_set_m128i(_mm_set1_epi32(pack(w[1], w[3])), _mm_set1_epi32(pack(w[0], w[2])));
}

/// 32 rows of one tile: two groups at a time, so that four columns of a row meet in a dword.
template <int BITS, bool AFFINE, int HALF>
void forward_half(const TileArgs& a, const uint8_t* tile, const uint8_t* table, const int8_t* wq,
                  int32_t base, int32_t* out, const Prefetch* ahead, int64_t& h) noexcept {
  using G = Group<BITS, HALF>;
  using T = Table<BITS, AFFINE>;
  V acc[2][4];
  for (auto& unit : acc) {
    for (V& v : unit) v = _mm256_setzero_si256();
  }
  static constexpr int8_t kNone[4] = {0, 0, 0, 0};
  int due = 0;
  for (int64_t g = a.g0; g < a.g1; g += 2) {
    const int64_t next = g + 1 < a.g1 ? g + 1 : g;
    const Signed w = split_sign(spread_model(wq + 4 * g, next > g ? wq + 4 * next : kNone));
    if (ahead != nullptr) TX_PREFETCH_DUE(*ahead, h, due, BITS, 0);  // half of two groups
    G first, second;
    G::read(first, tile + g * 32 * BITS);
    G::read(second, tile + next * 32 * BITS);
    T first_table, second_table;
    T::read(first_table, AFFINE ? nullptr : table + ((4 * g) << BITS));
    T::read(second_table, AFFINE ? nullptr : table + ((4 * next) << BITS));
    const Columns x[2] = {T::look_up(first_table, G::template unit<0>(first)),
                          T::look_up(first_table, G::template unit<1>(first))};
    const Columns y[2] = {T::look_up(second_table, G::template unit<0>(second)),
                          T::look_up(second_table, G::template unit<1>(second))};
    for (int u = 0; u < 2; ++u) {
      const V x_low = _mm256_unpacklo_epi8(x[u].even, x[u].odd),
              x_high = _mm256_unpackhi_epi8(x[u].even, x[u].odd);
      const V y_low = _mm256_unpacklo_epi8(y[u].even, y[u].odd),
              y_high = _mm256_unpackhi_epi8(y[u].even, y[u].odd);
      acc[u][0] = add_products(acc[u][0], _mm256_unpacklo_epi16(x_low, y_low), w);
      acc[u][1] = add_products(acc[u][1], _mm256_unpackhi_epi16(x_low, y_low), w);
      acc[u][2] = add_products(acc[u][2], _mm256_unpacklo_epi16(x_high, y_high), w);
      acc[u][3] = add_products(acc[u][3], _mm256_unpackhi_epi16(x_high, y_high), w);
    }
  }
  for (int u = 0; u < 2; ++u) {
    for (int k = 0; k < 4; ++k) {
      const __m128i sum =
          _mm_add_epi32(_mm256_castsi256_si128(acc[u][k]), _mm256_extracti128_si256(acc[u][k], 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32 * HALF + 16 * u + 4 * k),
                       _mm_add_epi32(sum, _mm_set1_epi32(base)));
    }
  }
}

template <int BITS, bool AFFINE>
void forward_bits(const TileArgs& a, const int8_t* wq, int32_t* dots,
                  const Prefetch& ahead) noexcept {
  const int sets = a.planes * a.books;
  int64_t h = 0;
  for (int o = 0; o < a.outputs; ++o) {
    const int8_t* w = wq + o * a.cols;
    const int32_t base = missing(w + 4 * a.g0, 4 * (a.g1 - a.g0));
    for (int s = 0; s < sets; ++s) {
      const uint8_t* table = AFFINE ? nullptr : a.table + s * a.set_bytes;
      const Prefetch* pf = o == 0 && s == 0 ? &ahead : nullptr;
      for (int t = 0; t < a.tiles; ++t) {
        const uint8_t* tile = a.codes + t * a.tile_bytes;
        int32_t* out = dots + (o * sets + s) * a.rows + 64 * t;
        forward_half<BITS, AFFINE, 0>(a, tile, table, w, base, out, pf, h);
        forward_half<BITS, AFFINE, 1>(a, tile, table, w, base, out, pf, h);
      }
    }
  }
}

template <int BITS, bool AFFINE, int HALF>
TX_INL void backward_half(const Table<BITS, AFFINE>& table, const uint8_t* group, const Signed* e,
                          Columns& acc) {
  using G = Group<BITS, HALF>;
  using T = Table<BITS, AFFINE>;
  G codes;
  G::read(codes, group);
  const Columns x[2] = {T::look_up(table, G::template unit<0>(codes)),
                        T::look_up(table, G::template unit<1>(codes))};
  for (int u = 0; u < 2; ++u) {
    acc.even = add_products(acc.even, x[u].even, e[2 * HALF + u]);
    acc.odd = add_products(acc.odd, x[u].odd, e[2 * HALF + u]);
  }
}

template <int BITS, bool AFFINE>
void backward_bits(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                   const Prefetch& ahead) noexcept {
  using T = Table<BITS, AFFINE>;
  int64_t h = 0;
  for (int o = 0; o < a.outputs; ++o) {
    Signed rows[2][16];
    int32_t base = 0;
    for (int b = 0; b < a.books; ++b) {
      const int8_t* e = eq + (o * a.books + b) * a.rows;
      for (int i = 0; i < 4 * a.tiles; ++i) {
        rows[b][i] = split_sign(_mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(e + 16 * i))));
      }
      base += missing(e, 64 * a.tiles);
    }
    for (int p = 0; p < a.planes; ++p) {
      const bool fetch = o == 0 && p == 0;
      int due = 0;
      for (int64_t g = a.g0; g < a.g1; ++g) {
        Columns acc[2] = {{_mm256_setzero_si256(), _mm256_setzero_si256()},
                          {_mm256_setzero_si256(), _mm256_setzero_si256()}};
        for (int b = 0; b < a.books; ++b) {
          T table;
          T::read(table,
                  AFFINE ? nullptr : a.table + (p * a.books + b) * a.set_bytes + ((4 * g) << BITS));
          const Signed* e = rows[a.books - 1 - b];  // each draw meets the residual of the other one
          for (int t = 0; t < a.tiles; ++t) {
            if (fetch && b == 0) TX_PREFETCH_DUE(ahead, h, due, BITS, ahead.half);
            const uint8_t* group = a.codes + t * a.tile_bytes + g * 32 * BITS;
            backward_half<BITS, AFFINE, 0>(table, group, e + 4 * t, acc[0]);
            backward_half<BITS, AFFINE, 1>(table, group, e + 4 * t, acc[1]);
          }
        }
        const V pairs = _mm256_hadd_epi32(_mm256_add_epi32(acc[0].even, acc[1].even),
                                          _mm256_add_epi32(acc[0].odd, acc[1].odd));
        const V total = _mm256_hadd_epi32(pairs, pairs);  // columns 0 1 0 1 | 2 3 2 3
        __m128i sum =
            _mm_unpacklo_epi64(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        sum = _mm_add_epi32(sum, _mm_set1_epi32(base));
        auto* out = reinterpret_cast<__m128i*>(sums + (o * a.planes + p) * a.cols + 4 * g);
        if (add) sum = _mm_add_epi32(sum, _mm_loadu_si128(out));
        _mm_storeu_si128(out, sum);
      }
    }
  }
}

template <int BITS>
void forward_kind(const TileArgs& a, const int8_t* wq, int32_t* dots,
                  const Prefetch& ahead) noexcept {
  a.table == nullptr ? forward_bits<BITS, true>(a, wq, dots, ahead)
                     : forward_bits<BITS, false>(a, wq, dots, ahead);
}

template <int BITS>
void backward_kind(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                   const Prefetch& ahead) noexcept {
  a.table == nullptr ? backward_bits<BITS, true>(a, eq, sums, add, ahead)
                     : backward_bits<BITS, false>(a, eq, sums, add, ahead);
}

}  // namespace

void tile_forward_avx2(const TileArgs& a, const int8_t* wq, int32_t* dots,
                       const Prefetch& ahead) noexcept {
  static constexpr ForwardFn* kByBits[] = {forward_kind<1>, forward_kind<2>, forward_kind<3>,
                                           forward_kind<4>, forward_kind<5>, forward_kind<6>,
                                           forward_kind<7>, forward_kind<8>};
  kByBits[a.bits - 1](a, wq, dots, ahead);
}

void tile_backward_avx2(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                        const Prefetch& ahead) noexcept {
  static constexpr BackwardFn* kByBits[] = {backward_kind<1>, backward_kind<2>, backward_kind<3>,
                                            backward_kind<4>, backward_kind<5>, backward_kind<6>,
                                            backward_kind<7>, backward_kind<8>};
  kByBits[a.bits - 1](a, eq, sums, add, ahead);
}

}  // namespace torchext::cpu
