// Integer products with tile4 codes, AVX2: blocks of columns, outputs that share a decode, and the
// choice of the kernel for a width and kind of table.
#include "tiles_columns_avx2.h"
#include "tiles_direct_avx2.h"

namespace torchext::cpu {
namespace {

/// Whether codes are decoded where they lie.
template <int B, bool Table>
constexpr bool kDirect = !Table || B <= 2;

/// dots of MO outputs. The model's signs go into a copy of a block's tables where that is cheaper
/// than into every value.
template <int B, bool Table, int SETS, int MO>
void forward_outputs(const TileArgs& a, const int8_t* wq, int32_t* dots, const Prefetch& pf) {
  constexpr bool plain = kDeep < B, Table >> 0, fold = !kDirect<B, Table> && MO == 1 && B <= 4;
  const Prefetch ahead = pf;
  for (int o = 0; o < MO; ++o) {
    const int32_t base = plain ? 0 : missing(wq + o * a.cols + 4 * a.g0, 4 * (a.g1 - a.g0));
    const V all = _mm256_set1_epi32(base);
    for (int i = 0; i < SETS; ++i) {
      for (int r = 0; r < 64 * a.tiles; r += 8) store32(dots + (o * SETS + i) * a.rows + r, all);
    }
  }
  ModelBlock<MO> model;
  constexpr int64_t fold_bytes = 4 * kBlockGroups << B;
  alignas(32) uint8_t folded[fold ? SETS * fold_bytes + 32 : 1];
  int64_t h = 0;
  int due = 0;
  for (int64_t g0 = a.g0; g0 < a.g1; g0 += kBlockGroups) {
    const int64_t groups = g0 + kBlockGroups < a.g1 ? kBlockGroups : a.g1 - g0;
    if constexpr (!plain) ModelBlock<MO>::read(model, wq + 4 * g0, a.cols, groups);
    const uint8_t* table = Table ? a.table + ((4 * g0) << B) : nullptr;
    int64_t set_bytes = a.set_bytes;
    if constexpr (fold) {
      for (int s = 0; s < SETS; ++s) {
        for (int64_t j = 0; j < 4 * groups; ++j) {
          const auto* from = reinterpret_cast<const __m128i*>(table + s * set_bytes + (j << B));
          _mm_storeu_si128(reinterpret_cast<__m128i*>(folded + s * fold_bytes + (j << B)),
                           _mm_xor_si128(_mm_loadu_si128(from), _mm_set1_epi8(model.flip[0][j])));
        }
      }
      table = folded;
      set_bytes = fold_bytes;
    }
    for (int t = 0; t < a.tiles; ++t) {
      const uint8_t* codes = a.codes + t * a.tile_bytes + g0 * 32 * B;
      if constexpr (kDirect<B, Table>) {
        forward_tile<B, Table, SETS, MO>(a, codes, table, model, wq + 4 * g0, groups, dots + 64 * t,
                                         ahead, h, due);
      } else {
        forward_tile_columns<B, SETS, MO, fold>(a, codes, table, set_bytes, model, groups,
                                                dots + 64 * t, ahead, h, due);
      }
    }
  }
}

/// Nothing more to fetch: the first outputs' pass did it. Reads what is cached anyway.
Prefetch no_streams(const TileArgs& a) {
  Prefetch none{};
  for (const uint8_t*& s : none.stream) s = a.codes;
  none.log2_streams = 4;
  return none;
}

/// Widths whose tables get kernels for several outputs, bytes of T and draws at once; the others
/// take them one by one, which keeps this file quick to compile.
template <int B>
constexpr bool kHot = B == 2 || B == 4;

/// Byte and draw `set` of a table as a table of its own.
TileArgs one_set(TileArgs a, int set) {
  a.table += set * a.set_bytes;
  a.planes = a.books = 1;
  return a;
}

template <int B, bool Table, int SETS>
void forward_sets(const TileArgs& a, const int8_t* wq, int32_t* dots, const Prefetch& ahead) {
  const Prefetch none = no_streams(a);
  int o = 0;
  if constexpr (SETS <= 2 && (!Table || kHot<B>)) {
    for (; o + 2 <= a.outputs; o += 2) {
      forward_outputs<B, Table, SETS, 2>(a, wq + o * a.cols, dots + o * SETS * a.rows,
                                         o == 0 ? ahead : none);
    }
  }
  for (; o < a.outputs; ++o) {
    forward_outputs<B, Table, SETS, 1>(a, wq + o * a.cols, dots + o * SETS * a.rows,
                                       o == 0 ? ahead : none);
  }
}

template <int B, bool Table, int P, int BOOKS, int MO>
void backward_outputs(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                      const Prefetch& ahead) {
  if constexpr (kDirect<B, Table>) {
    backward_direct<B, Table, P, BOOKS, MO>(a, eq, sums, add, ahead);
  } else {
    backward_columns<B, P, BOOKS, MO>(a, eq, sums, add, ahead);
  }
}

template <int B, bool Table, int P, int BOOKS>
void backward_sets(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                   const Prefetch& ahead) {
  const Prefetch none = no_streams(a);
  int o = 0;
  if constexpr (P * BOOKS <= 2 && (!Table || kHot<B>)) {
    for (; o + 2 <= a.outputs; o += 2) {
      backward_outputs<B, Table, P, BOOKS, 2>(a, eq + o * BOOKS * a.rows, sums + o * P * a.cols,
                                              add, o == 0 ? ahead : none);
    }
  }
  for (; o < a.outputs; ++o) {
    backward_outputs<B, Table, P, BOOKS, 1>(a, eq + o * BOOKS * a.rows, sums + o * P * a.cols, add,
                                            o == 0 ? ahead : none);
  }
}

template <int B>
void forward_kind(const TileArgs& a, const int8_t* wq, int32_t* dots,
                  const Prefetch& ahead) noexcept {
  const int sets = a.planes * a.books;
  if (a.table == nullptr) return forward_sets<B, false, 1>(a, wq, dots, ahead);
  if (sets == 1) return forward_sets<B, true, 1>(a, wq, dots, ahead);
  if constexpr (kHot<B>) {
    return sets == 2 ? forward_sets<B, true, 2>(a, wq, dots, ahead)
                     : forward_sets<B, true, 4>(a, wq, dots, ahead);
  } else {
    const Prefetch none = no_streams(a);
    for (int i = 0; i < a.outputs * sets; ++i) {
      forward_outputs<B, true, 1, 1>(one_set(a, i % sets), wq + i / sets * a.cols,
                                     dots + i * a.rows, i == 0 ? ahead : none);
    }
  }
}

template <int B>
void backward_kind(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                   const Prefetch& ahead) noexcept {
  if (a.table == nullptr) return backward_sets<B, false, 1, 1>(a, eq, sums, add, ahead);
  if (a.planes * a.books == 1) return backward_sets<B, true, 1, 1>(a, eq, sums, add, ahead);
  if constexpr (kHot<B>) {
    if (a.books == 1) return backward_sets<B, true, 2, 1>(a, eq, sums, add, ahead);
    return a.planes == 1 ? backward_sets<B, true, 1, 2>(a, eq, sums, add, ahead)
                         : backward_sets<B, true, 2, 2>(a, eq, sums, add, ahead);
  } else {
    const Prefetch none = no_streams(a);
    for (int i = 0; i < a.outputs * a.planes; ++i) {
      for (int book = 0; book < a.books; ++book) {
        const int other = a.books - 1 - book;  // each draw meets the residual of the other one
        backward_outputs<B, true, 1, 1, 1>(one_set(a, i % a.planes * a.books + book),
                                           eq + (i / a.planes * a.books + other) * a.rows,
                                           sums + i * a.cols, add || book > 0,
                                           i == 0 && book == 0 ? ahead : none);
      }
    }
  }
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
