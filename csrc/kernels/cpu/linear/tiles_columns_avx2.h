// Tile products for tables of 3 bits and more: a look-up covers 16 entries per 128-bit lane, so the
// packed lines are first rearranged to one column per vector. From tiles_avx2.cpp only.
#pragma once

#include "products_avx2.h"

namespace torchext::cpu {
namespace {

/// Four columns, one per vector: dword d of lane l is rows 8 m .. 8 m + 3 (l = 0) or 8 m + 4 ..
/// 8 m + 7 (l = 1), where m is row_block(F, d) of field F.
struct Columns {
  V c[4];
};

constexpr int row_block(int field, int d) { return 4 * (d / 2) + 2 * field + d % 2; }

TX_INL Columns by_column(V b0, V b1, V b2, V b3, V order) {
  b0 = _mm256_shuffle_epi8(b0, order);
  b1 = _mm256_shuffle_epi8(b1, order);
  b2 = _mm256_shuffle_epi8(b2, order);
  b3 = _mm256_shuffle_epi8(b3, order);
  const V low01 = _mm256_unpacklo_epi32(b0, b1), high01 = _mm256_unpackhi_epi32(b0, b1);
  const V low23 = _mm256_unpacklo_epi32(b2, b3), high23 = _mm256_unpackhi_epi32(b2, b3);
  return {_mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
          _mm256_unpacklo_epi64(high01, high23), _mm256_unpackhi_epi64(high01, high23)};
}

/// The planes of one (tile, group) by column.
template <int B>
struct TileColumns {
  using L = Lines<B>;
  Columns four, two, one, eight[2];

  TX_INL TileColumns load(const uint8_t* p, V order) {
    const L l = L::load(p);
    TileColumns t;
    if constexpr (B == 8) {
      t.eight[0] = by_column(l.v[0], l.v[1], l.v[4], l.v[5], order);
      t.eight[1] = by_column(l.v[2], l.v[3], l.v[6], l.v[7], order);
    } else {
      if constexpr (L::kFour) t.four = by_column(l.v[0], l.v[1], l.v[2], l.v[3], order);
      if constexpr (L::kTwo) {
        const V a = l.v[L::kTwoAt], b = l.v[L::kTwoAt + 1];
        t.two = by_column(a, b, _mm256_srli_epi16(a, 4), _mm256_srli_epi16(b, 4), order);
      }
      if constexpr (L::kOne) {
        const V a = l.v[L::kOneAt];
        t.one = by_column(a, _mm256_srli_epi16(a, 1), _mm256_srli_epi16(a, 4),
                          _mm256_srli_epi16(a, 5), order);
      }
    }
    return t;
  }

  template <int F, int C>
  TX_INL V codes(const TileColumns& t) {
    if constexpr (B == 8) return t.eight[F].c[C];
    V code = {};
    if constexpr (L::kFour) code = field<4 * F, 0, 4>(t.four.c[C], code);
    if constexpr (L::kTwo) code = field<2 * F, L::kTwoAt, 2>(t.two.c[C], code);
    if constexpr (L::kOne) code = field<2 * F, B - 1, 1>(t.one.c[C], code);
    return code;
  }
};

/// Entries of a column's table; `low` is code & 15.
template <int B>
TX_INL V find_parts(const uint8_t* table, V low, V code) {
  if constexpr (B <= 4) {
    return _mm256_shuffle_epi8(twice16(table), low);
  } else {
    const V lower = find_parts<B - 1>(table, low, code),
            upper = find_parts<B - 1>(table + (1 << (B - 1)), low, code);
    return _mm256_blendv_epi8(lower, upper, _mm256_slli_epi16(code, 8 - B));  // by bit B - 1
  }
}

/// Out of line: 4 to 16 look-ups, where a call costs little and eight copies much.
template <int B>
__attribute__((noinline)) V find_wide(const uint8_t* table, V code) {
  return find_parts<B>(table, _mm256_and_si256(code, bytes(15)), code);
}

template <int B>
TX_INL V find_entries(const uint8_t* table, V code) {
  if constexpr (B >= 6) return find_wide<B>(table, code);
  return find_parts<B>(table, B <= 4 ? code : _mm256_and_si256(code, bytes(15)), code);
}

/// Sums of one tile and a block of column groups. FOLD: the tables already hold T'.
template <int B, int SETS, int MO, bool FOLD>
TX_INL void forward_tile_columns(const TileArgs& a, const uint8_t* codes, const uint8_t* table,
                                 int64_t set_bytes, const ModelBlock<MO>& model, int64_t groups,
                                 int32_t* dots, const Prefetch& ahead, int64_t& h, int& due) {
  const V order = byte_order();
  V acc[SETS * MO * 8];
  repeat<SETS * MO * 8>([&](auto i) TX_LAMBDA {
    constexpr int s = i.value / 8 % SETS, o = i.value / (8 * SETS);
    acc[i.value] = load32(dots + (o * SETS + s) * a.rows + 8 * (i.value % 8));
  });
  for (int64_t g = 0; g < groups; ++g) {
    TX_PREFETCH_TILE(ahead, h, due, 0);
    const auto columns = TileColumns<B>::load(codes + g * 32 * B, order);
    repeat<2>([&](auto f) TX_LAMBDA {
      V code[4];
      repeat<4>([&](auto c) TX_LAMBDA {
        code[c.value] = TileColumns<B>::template codes<f.value, c.value>(columns);
      });
      repeat<SETS>([&](auto s) TX_LAMBDA {
        V t[4];
        repeat<4>([&](auto c) TX_LAMBDA {
          t[c.value] = find_entries<B>(table + s.value * set_bytes + ((4 * g + c.value) << B),
                                       code[c.value]);
        });
        // back to dword = row, four columns
        const V low01 = _mm256_unpacklo_epi8(t[0], t[1]), high01 = _mm256_unpackhi_epi8(t[0], t[1]);
        const V low23 = _mm256_unpacklo_epi8(t[2], t[3]), high23 = _mm256_unpackhi_epi8(t[2], t[3]);
        const V x[4] = {_mm256_unpacklo_epi16(low01, low23), _mm256_unpackhi_epi16(low01, low23),
                        _mm256_unpacklo_epi16(high01, high23),
                        _mm256_unpackhi_epi16(high01, high23)};
        repeat<MO>([&](auto o) TX_LAMBDA {
          const V size = every4(model.size[o.value] + 4 * g);
          repeat<4>([&](auto d) TX_LAMBDA {
            V& sum = acc[(o.value * SETS + s.value) * 8 + row_block(f.value, d.value)];
            sum = add_products(
                sum,
                FOLD ? x[d.value]
                     : _mm256_xor_si256(x[d.value], every4(model.flip[o.value] + 4 * g)),
                size);
          });
        });
      });
    });
  }
  repeat<SETS * MO * 8>([&](auto i) TX_LAMBDA {
    constexpr int s = i.value / 8 % SETS, o = i.value / (8 * SETS);
    store32(dots + (o * SETS + s) * a.rows + 8 * (i.value % 8), acc[i.value]);
  });
}

/// Column sums of a chunk.
template <int B, int P, int BOOKS, int MO>
void backward_columns(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                      const Prefetch& pf) noexcept {
  Residuals<MO * BOOKS * 8> e;
  int32_t base[MO] = {};
  for (int k = 0; k < MO * BOOKS; ++k) {
    const int8_t* from = eq + k * a.rows;
    for (int i = 0; i < 2 * a.tiles; ++i) {  // tile i / 2, field i % 2
      const int8_t* rows = from + 64 * (i / 2) + 16 * (i % 2);
      const auto x = _mm_castsi128_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows))),
                 y = _mm_castsi128_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + 32)));
      e.put(e, 8 * k + i,
            _mm256_set_m128i(_mm_castps_si128(_mm_shuffle_ps(x, y, 0xdd)),
                             _mm_castps_si128(_mm_shuffle_ps(x, y, 0x88))),
            false);
    }
    base[k / BOOKS] += missing(from, 64 * a.tiles);
  }
  const V order = byte_order();
  const Prefetch ahead = pf;
  int64_t h = 0;
  int due = 0;
  for (int64_t g = a.g0; g < a.g1; ++g) {
    V acc[P * MO * 4] = {};
    for (int t = 0; t < a.tiles; ++t) {
      TX_PREFETCH_TILE(ahead, h, due, ahead.half);
      const auto columns = TileColumns<B>::load(a.codes + t * a.tile_bytes + g * 32 * B, order);
      repeat<2>([&](auto f) TX_LAMBDA {
        repeat<4>([&](auto c) TX_LAMBDA {
          const V code = TileColumns<B>::template codes<f.value, c.value>(columns);
          repeat<P * BOOKS>([&](auto s) TX_LAMBDA {
            constexpr int plane = s.value / BOOKS, book = s.value % BOOKS;
            const V value =
                find_entries<B>(a.table + s.value * a.set_bytes + ((4 * g + c.value) << B), code);
            repeat<MO>([&](auto o) TX_LAMBDA {
              // each draw meets the residual of the other one
              const int at = 8 * (o.value * BOOKS + BOOKS - 1 - book) + 2 * t + f.value;
              V& sum = acc[(plane * MO + o.value) * 4 + c.value];
              sum = add_products(sum, _mm256_xor_si256(value, e.flip[at]), e.size[at]);
            });
          });
        });
      });
    }
    repeat<P * MO>([&](auto i) TX_LAMBDA {
      constexpr int plane = i.value / MO, o = i.value % MO, at = 4 * i.value;
      const V both = _mm256_hadd_epi32(_mm256_hadd_epi32(acc[at], acc[at + 1]),
                                       _mm256_hadd_epi32(acc[at + 2], acc[at + 3]));
      add_columns(sums + (o * P + plane) * a.cols + 4 * g,
                  _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)),
                  base[o], add);
    });
  }
}

}  // namespace
}  // namespace torchext::cpu
