// Tile products for codes that are decoded where they lie: affine codes of any width, and tables of
// at most 2 bits, whose four columns share one look-up. From tiles_avx2.cpp only.
#pragma once

#include "products_avx2.h"

namespace torchext::cpu {
namespace {

/// Column << B in every byte where a table wants it; by dwords after the bytes were transposed.
template <int B, bool Table, bool Transposed>
TX_INL V column_id() {
  if constexpr (!Table) {
    return V{};
  } else {
    constexpr int one = 0x01010101 << B;
    return Transposed ? _mm256_setr_epi32(0, one, 2 * one, 3 * one, 0, one, 2 * one, 3 * one)
                      : _mm256_set1_epi32(0x03020100 << B);
  }
}

/// The tables of a group's four columns, 16 bytes or the first 8 of them.
template <bool Table>
TX_INL V find(const uint8_t* table, V index) {
  return Table ? _mm256_shuffle_epi8(twice16(table), index) : index;
}

/// Sums of one tile and a block of column groups; dword = row.
template <int B, bool Table, int SETS, int MO>
TX_INL void forward_tile(const TileArgs& a, const uint8_t* codes, const uint8_t* table,
                         const ModelBlock<MO>& model, const int8_t* wq, int64_t groups,
                         int32_t* dots, const Prefetch& ahead, int64_t& h, int& due) {
  constexpr int deep = kDeep<B, Table>;
  const V id = column_id<B, Table, false>();
  V acc[SETS * MO * 8];
  repeat<SETS * MO * 8>([&](auto i) TX_LAMBDA {
    constexpr int s = i.value / 8 % SETS, o = i.value / (8 * SETS);
    acc[i.value] = load32(dots + (o * SETS + s) * a.rows + 8 * (i.value % 8));
  });
  const int64_t tile_stride = a.cols;
  const auto group = [&](int64_t g, V* sums) TX_LAMBDA {
    TX_PREFETCH_TILE(ahead, h, due, 0);
    const Lines<B> lines = Lines<B>::load(codes + g * 32 * B);
    repeat<8>([&](auto r) TX_LAMBDA {
      const V index = Lines<B>::template rows<r.value>(lines, id);
      repeat<SETS>([&](auto s) TX_LAMBDA {
        const V t =
            find<Table>(Table ? table + s.value * a.set_bytes + ((4 * g) << B) : nullptr, index);
        repeat<MO>([&](auto o) TX_LAMBDA {
          V& sum = sums[(o.value * SETS + s.value) * 8 + r.value];
          if constexpr (deep > 0) {
            sum = _mm256_add_epi16(
                sum, _mm256_maddubs_epi16(t, every4(wq + o.value * tile_stride + 4 * g)));
          } else {
            sum = add_products(sum, _mm256_xor_si256(t, every4(model.flip[o.value] + 4 * g)),
                               every4(model.size[o.value] + 4 * g));
          }
        });
      });
    });
  };
  if constexpr (deep > 0) {
    for (int64_t g0 = 0; g0 < groups; g0 += deep) {
      V narrow[MO * 8] = {};
      const int64_t end = g0 + deep < groups ? g0 + deep : groups;
      for (int64_t g = g0; g < end; ++g) group(g, narrow);
      repeat<MO * 8>([&](auto i) TX_LAMBDA {
        acc[i.value] = _mm256_add_epi32(acc[i.value], widen(narrow[i.value]));
      });
    }
  } else {
    for (int64_t g = 0; g < groups; ++g) group(g, acc);
  }
  repeat<SETS * MO * 8>([&](auto i) TX_LAMBDA {
    constexpr int s = i.value / 8 % SETS, o = i.value / (8 * SETS);
    store32(dots + (o * SETS + s) * a.rows + 8 * (i.value % 8), acc[i.value]);
  });
}

/// Column sums of a chunk; after a byte transposition of the packed lines dword = column.
template <int B, bool Table, int P, int BOOKS, int MO>
void backward_direct(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                     const Prefetch& pf) noexcept {
  constexpr int deep = kDeep<B, Table>;
  Residuals<MO * BOOKS * 32> e;
  int32_t base[MO] = {};
  const V spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  for (int k = 0; k < MO * BOOKS; ++k) {
    const int8_t* from = eq + k * a.rows;
    for (int i = 0; i < 8 * a.tiles; ++i) {
      const __m128i rows = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 8 * i));
      const V all = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(rows), spread);
      e.put(e, 32 * k + i, all, deep > 0);
    }
    if (deep == 0) base[k / BOOKS] += missing(from, 64 * a.tiles);
  }
  const V order = byte_order(), id = column_id<B, Table, true>();
  const Prefetch ahead = pf;
  int64_t h = 0;
  int due = 0;
  for (int64_t g = a.g0; g < a.g1; ++g) {
    V acc[P * MO * 2] = {};
    for (int t = 0; t < a.tiles; ++t) {
      TX_PREFETCH_TILE(ahead, h, due, ahead.half);
      Lines<B> lines = Lines<B>::load(a.codes + t * a.tile_bytes + g * 32 * B);
      repeat<Lines<B>::kCount>([&](auto i) TX_LAMBDA {
        lines.v[i.value] = _mm256_shuffle_epi8(lines.v[i.value], order);
      });
      V narrow[MO] = {};
      repeat<8>([&](auto r) TX_LAMBDA {
        const V index = Lines<B>::template rows<r.value>(lines, id);
        repeat<P * BOOKS>([&](auto s) TX_LAMBDA {
          constexpr int plane = s.value / BOOKS, book = s.value % BOOKS;
          const V value = find<Table>(
              Table ? a.table + s.value * a.set_bytes + ((4 * g) << B) : nullptr, index);
          repeat<MO>([&](auto o) TX_LAMBDA {
            // each draw meets the residual of the other one
            const int at = 32 * (o.value * BOOKS + BOOKS - 1 - book) + 8 * t + r.value;
            V& sum = acc[(plane * MO + o.value) * 2 + (r.value + book) % 2];
            if constexpr (deep > 0) {
              V& sums16 = narrow[o.value];
              sums16 = _mm256_add_epi16(sums16, _mm256_maddubs_epi16(value, e.size[at]));
              if constexpr ((r.value + 1) % (deep < 8 ? deep : 8) == 0 || r.value == 7) {
                sum = _mm256_add_epi32(sum, widen(sums16));
                sums16 = V{};
              }
            } else {
              sum = add_products(sum, _mm256_xor_si256(value, e.flip[at]), e.size[at]);
            }
          });
        });
      });
    }
    repeat<P * MO>([&](auto i) TX_LAMBDA {
      constexpr int plane = i.value / MO, o = i.value % MO;
      const V both = _mm256_add_epi32(acc[2 * i.value], acc[2 * i.value + 1]);
      add_columns(sums + (o * P + plane) * a.cols + 4 * g,
                  _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)),
                  base[o], add);
    });
  }
}

}  // namespace
}  // namespace torchext::cpu
