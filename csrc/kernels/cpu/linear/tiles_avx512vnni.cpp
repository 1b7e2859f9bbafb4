// Integer products with tile4 codes: AVX-512 with VBMI and VNNI.
//
// A unit is 16 rows x 4 columns of one group: 64 bytes, byte 4r + c. Forward, one vpdpbusd with the
// four model bytes of the group adds all four columns into a row's own lane, so no horizontal sum
// is ever needed. Backward, the packed bytes are first transposed inside each 128-bit lane (byte 4c
// + r), so that vpdpbusd with four residual bytes adds four rows of one column.
#include <immintrin.h>

#include <cstring>

#include "../../linear/sgd_kernels.h"
#include "../../linear/tile_prefetch.h"

namespace torchext::cpu {
namespace {

#define TX_INL static inline __attribute__((always_inline))

using V = __m512i;

TX_INL V load64(const uint8_t* p) { return _mm512_loadu_si512(p); }

/// Constant added to a code to reach its column's table: column << bits at every byte.
template <int BITS, bool TRANSPOSED>
TX_INL V column_offset() {
  static_assert(BITS <= 6, "wider codes leave no room for the column in a byte");
  constexpr uint32_t c = 1u << BITS;
  if constexpr (TRANSPOSED) {
    constexpr uint32_t every = 0x01010101u * c;
    return _mm512_broadcast_i32x4(_mm_setr_epi32(
        0, static_cast<int>(every), static_cast<int>(2 * every), static_cast<int>(3 * every)));
  }
  return _mm512_set1_epi32(static_cast<int>(c << 8 | 2 * c << 16 | 3 * c << 24));
}

/// Bytes of 16 rows x 4 columns from byte 4r + c to 4c + r inside each lane of four rows.
TX_INL V transpose4(V v) {
  return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6,
                                                                     10, 14, 3, 7, 11, 15)));
}

/// The planes of one (tile, group), transposed once where that is wanted.
template <int BITS, bool TRANSPOSED>
struct Group {
  static constexpr bool kOne = BITS & 1, kTwo = BITS & 2, kFour = BITS & 4;
  V four[2], two, bit;

  TX_INL V get(const uint8_t* p) { return TRANSPOSED ? transpose4(load64(p)) : load64(p); }

  TX_INL void read(Group& g, const uint8_t* p) {
    if constexpr (BITS == 8) return;
    if constexpr (kFour) {
      g.four[0] = get(p);
      g.four[1] = get(p + 64);
      p += 128;
    }
    if constexpr (kTwo) {
      g.two = get(p);
      p += 64;
    }
    if constexpr (kOne) {  // half a line: both halves of the vector see it
      V v = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
      if constexpr (TRANSPOSED) v = transpose4(v);
      // rows 8f + r: the upper half holds the next field
      g.bit = _mm512_mask_srli_epi16(v, 0xFFFF0000u, v, 1);
    }
  }

  /// Codes of unit q (rows 16q .. 16q+15); `or_in` is OR-ed into every byte.
  template <int Q>
  TX_INL V unit(const Group& g, const uint8_t* p, V or_in) {
    if constexpr (BITS == 8) return get(p + 64 * Q);
    V code = or_in;
    if constexpr (kFour) {
      const V v = Q % 2 ? _mm512_srli_epi32(g.four[Q / 2], 4) : g.four[Q / 2];
      code = _mm512_ternarylogic_epi32(v, _mm512_set1_epi8(15), code, 0xEA);
    }
    if constexpr (kTwo) {
      constexpr int at = kFour ? 4 : 0;
      const V v = 2 * Q > at ? _mm512_srli_epi32(g.two, 2 * Q > at ? 2 * Q - at : 0)
                             : _mm512_slli_epi32(g.two, 2 * Q > at ? 0 : at - 2 * Q);
      code = _mm512_ternarylogic_epi32(v, _mm512_set1_epi8(3 << at), code, 0xEA);
    }
    if constexpr (kOne) {
      constexpr int at = BITS - 1;
      const V v = 2 * Q > at ? _mm512_srli_epi32(g.bit, 2 * Q > at ? 2 * Q - at : 0)
                             : _mm512_slli_epi32(g.bit, 2 * Q > at ? 0 : at - 2 * Q);
      code = _mm512_ternarylogic_epi32(v, _mm512_set1_epi8(static_cast<char>(1 << at)), code, 0xEA);
    }
    return code;
  }
};

/// Tables of one group as registers, and the look-up.
template <int BITS, bool TRANSPOSED>
struct Table {
  static constexpr int kBytes = 4 << BITS;
  static constexpr int kRegisters = BITS <= 4 ? 1 : BITS == 5 ? 2 : 4;
  V t[kRegisters];
  const uint8_t* base;

  TX_INL void read(Table& self, const uint8_t* p) {
    self.base = p;
    if constexpr (BITS == 1) {
      self.t[0] = _mm512_broadcast_i32x4(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    } else if constexpr (BITS == 2) {
      self.t[0] = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    } else if constexpr (BITS == 3) {
      self.t[0] = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    } else if constexpr (BITS <= 6) {
      for (int i = 0; i < kBytes / 64; ++i) self.t[i] = load64(p + 64 * i);
    }
  }

  /// `code` carries the column offset for BITS <= 6.
  TX_INL V look_up(const Table& self, V code) {
    if constexpr (BITS <= 2) return _mm512_shuffle_epi8(self.t[0], code);
    if constexpr (BITS <= 4) return _mm512_permutexvar_epi8(code, self.t[0]);
    if constexpr (BITS == 5) return _mm512_permutex2var_epi8(self.t[0], code, self.t[1]);
    if constexpr (BITS == 6) {
      return _mm512_mask_blend_epi8(_mm512_movepi8_mask(code),
                                    _mm512_permutex2var_epi8(self.t[0], code, self.t[1]),
                                    _mm512_permutex2var_epi8(self.t[2], code, self.t[3]));
    }
    // 128 or 256 entries a column: one look-up per column, kept where the byte belongs to it
    V out = _mm512_setzero_si512();
    for (int c = 0; c < 4; ++c) {
      const uint8_t* p = self.base + (c << BITS);
      const __mmask64 here =
          TRANSPOSED ? 0x000F000F000F000Full << 4 * c : 0x1111111111111111ull << c;
      const __mmask64 upper = BITS == 8 ? here & _mm512_movepi8_mask(code) : 0;
      V v = _mm512_permutex2var_epi8(load64(p), code, load64(p + 64));
      out = _mm512_mask_mov_epi8(out, here, v);
      if constexpr (BITS == 8) {
        v = _mm512_permutex2var_epi8(load64(p + 128), code, load64(p + 192));
        out = _mm512_mask_mov_epi8(out, upper, v);
      }
    }
    return out;
  }
};

/// Integers T of a unit: through the table, or the codes themselves.
template <int BITS, bool AFFINE, bool TRANSPOSED>
struct Decoder {
  using G = Group<BITS, TRANSPOSED>;
  using T = Table<BITS, TRANSPOSED>;
  G group;
  const uint8_t* codes;

  TX_INL void read(Decoder& d, const uint8_t* p) {
    d.codes = p;
    G::read(d.group, p);
  }
  template <int Q>
  TX_INL V code(const Decoder& d) {
    V offset = _mm512_setzero_si512();
    if constexpr (!AFFINE && BITS <= 6) offset = column_offset<BITS, TRANSPOSED>();
    return G::template unit<Q>(d.group, d.codes, offset);
  }
  TX_INL V value(const T& t, V code) { return AFFINE ? code : T::look_up(t, code); }
};

TX_INL V spread4(const int8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return _mm512_set1_epi32(four);
}

/// NT tiles, SETS tables, OB outputs, every accumulator in a register.
template <int BITS, bool AFFINE, int NT, int SETS, int OB>
void forward_block(const TileArgs& a, const uint8_t* codes, int set0, int out0, const int8_t* wq,
                   int32_t* dots, const Prefetch* ahead, int64_t& h) noexcept {
  using D = Decoder<BITS, AFFINE, false>;
  V acc[NT][SETS][OB][4];
  for (auto& tile : acc) {
    for (auto& set : tile) {
      for (auto& out : set) {
        for (V& v : out) v = _mm512_setzero_si512();
      }
    }
  }
  typename D::T table[SETS];
  int due = 0;
  for (int64_t g = a.g0; g < a.g1; ++g) {
    V w[OB];
    for (int o = 0; o < OB; ++o) w[o] = spread4(wq + (out0 + o) * a.cols + 4 * g);
    if constexpr (!AFFINE) {
      for (int s = 0; s < SETS; ++s)
        D::T::read(table[s], a.table + (set0 + s) * a.set_bytes + ((4 * g) << BITS));
    }
    if (ahead != nullptr) TX_PREFETCH_DUE(*ahead, h, due, NT * BITS, 0);
    for (int t = 0; t < NT; ++t) {
      D d;
      D::read(d, codes + t * a.tile_bytes + g * 32 * BITS);
      const V code[4] = {D::template code<0>(d), D::template code<1>(d), D::template code<2>(d),
                         D::template code<3>(d)};
      for (int s = 0; s < SETS; ++s) {
        for (int q = 0; q < 4; ++q) {
          const V value = D::value(table[s], code[q]);
          for (int o = 0; o < OB; ++o)
            acc[t][s][o][q] = _mm512_dpbusd_epi32(acc[t][s][o][q], value, w[o]);
        }
      }
    }
  }
  const int sets = a.planes * a.books;
  for (int t = 0; t < NT; ++t) {
    for (int s = 0; s < SETS; ++s) {
      for (int o = 0; o < OB; ++o) {
        int32_t* out = dots + ((out0 + o) * sets + set0 + s) * a.rows + 64 * t;
        for (int q = 0; q < 4; ++q) _mm512_storeu_si512(out + 16 * q, acc[t][s][o][q]);
      }
    }
  }
}

template <int BITS, bool AFFINE>
void forward_bits(const TileArgs& a, const int8_t* wq, int32_t* dots,
                  const Prefetch& ahead) noexcept {
  const int sets = a.planes * a.books;
  int64_t h = 0;
  for (int set = 0; set < sets;) {
    const int many = sets - set >= 2 ? 2 : 1;
    for (int out = 0; out < a.outputs;) {
      const Prefetch* pf = set == 0 && out == 0 ? &ahead : nullptr;
      const int wide = many == 1 && a.outputs - out >= 4 ? 4 : 1;
      for (int t = 0; t < a.tiles;) {
        const uint8_t* codes = a.codes + t * a.tile_bytes;
        int32_t* to = dots + 64 * t;
        const int rest = a.tiles - t;
        if (wide == 4) {
          forward_block<BITS, AFFINE, 1, 1, 4>(a, codes, set, out, wq, to, pf, h), t += 1;
        } else if (many == 2 && rest >= 2) {
          forward_block<BITS, AFFINE, 2, 2, 1>(a, codes, set, out, wq, to, pf, h), t += 2;
        } else if (many == 2) {
          forward_block<BITS, AFFINE, 1, 2, 1>(a, codes, set, out, wq, to, pf, h), t += 1;
        } else if (rest >= 4) {
          forward_block<BITS, AFFINE, 4, 1, 1>(a, codes, set, out, wq, to, pf, h), t += 4;
        } else if (rest >= 2) {
          forward_block<BITS, AFFINE, 2, 1, 1>(a, codes, set, out, wq, to, pf, h), t += 2;
        } else {
          forward_block<BITS, AFFINE, 1, 1, 1>(a, codes, set, out, wq, to, pf, h), t += 1;
        }
      }
      out += wide;
    }
    set += many;
  }
}

/// Dword k*4 + d of the result: the sum of the four lanes of a[k] at dword d.
TX_INL V join_lanes(const V* a) {
  const V s = _mm512_add_epi32(_mm512_shuffle_i32x4(a[0], a[1], 0x88),
                               _mm512_shuffle_i32x4(a[0], a[1], 0xdd));
  const V t = _mm512_add_epi32(_mm512_shuffle_i32x4(a[2], a[3], 0x88),
                               _mm512_shuffle_i32x4(a[2], a[3], 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(s, t, 0x88), _mm512_shuffle_i32x4(s, t, 0xdd));
}

/// Residual bytes 4l .. 4l+3 of 16 rows in every dword of lane l.
TX_INL V spread_rows(const int8_t* e) {
  const V index = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutexvar_epi32(
      index, _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(e))));
}

template <int BITS, bool AFFINE, int PLANES, int BOOKS, int OB>
void backward_block(const TileArgs& a, int out0, const int8_t* eq, int32_t* sums, bool add,
                    const Prefetch* ahead, int64_t& h) noexcept {
  using D = Decoder<BITS, AFFINE, true>;
  constexpr int kSets = PLANES * BOOKS;
  V rows[OB][BOOKS][16];
  for (int o = 0; o < OB; ++o) {
    for (int b = 0; b < BOOKS; ++b) {
      const int8_t* e = eq + ((out0 + o) * BOOKS + b) * a.rows;
      for (int i = 0; i < 4 * a.tiles; ++i) rows[o][b][i] = spread_rows(e + 16 * i);
    }
  }
  const int tiles = a.tiles;
  typename D::T table[kSets];
  int due = 0;
  for (int64_t g0 = a.g0; g0 < a.g1; g0 += 4) {
    V acc[PLANES][OB][2][4];
    for (auto& plane : acc) {
      for (auto& out : plane) {
        for (auto& half : out) {
          for (V& v : half) v = _mm512_setzero_si512();
        }
      }
    }
    const int groups = a.g1 - g0 < 4 ? static_cast<int>(a.g1 - g0) : 4;
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      if (k >= groups) break;
      const int64_t g = g0 + k;
      if constexpr (!AFFINE) {
        for (int s = 0; s < kSets; ++s)
          D::T::read(table[s], a.table + s * a.set_bytes + ((4 * g) << BITS));
      }
      for (int t = 0; t < tiles; ++t) {
        if (ahead != nullptr) TX_PREFETCH_DUE(*ahead, h, due, BITS, ahead->half);
        D d;
        D::read(d, a.codes + t * a.tile_bytes + g * 32 * BITS);
        const V code[4] = {D::template code<0>(d), D::template code<1>(d), D::template code<2>(d),
                           D::template code<3>(d)};
        for (int q = 0; q < 4; ++q) {
          for (int p = 0; p < PLANES; ++p) {
            for (int b = 0; b < BOOKS; ++b) {
              const V value = D::value(table[p * BOOKS + b], code[q]);
              for (int o = 0; o < OB; ++o) {
                V& to = acc[p][o][q % 2][k];
                to = _mm512_dpbusd_epi32(to, value, rows[o][BOOKS - 1 - b][4 * t + q]);
              }
            }
          }
        }
      }
    }
    for (int p = 0; p < PLANES; ++p) {
      for (int o = 0; o < OB; ++o) {
        V joined[4];
        for (int k = 0; k < 4; ++k) joined[k] = _mm512_add_epi32(acc[p][o][0][k], acc[p][o][1][k]);
        V sum = join_lanes(joined);
        int32_t* out = sums + ((out0 + o) * PLANES + p) * a.cols + 4 * g0;
        if (add) sum = _mm512_add_epi32(sum, _mm512_loadu_si512(out));
        _mm512_storeu_si512(out, sum);
      }
    }
  }
}

template <int BITS, bool AFFINE>
void backward_bits(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                   const Prefetch& ahead) noexcept {
  int64_t h = 0;
  for (int out = 0; out < a.outputs;) {
    const Prefetch* pf = out == 0 ? &ahead : nullptr;
    const bool single = a.planes == 1 && a.books == 1;
    if (single && a.outputs - out >= 4) {
      backward_block<BITS, AFFINE, 1, 1, 4>(a, out, eq, sums, add, pf, h), out += 4;
      continue;
    }
    if (single) {
      backward_block<BITS, AFFINE, 1, 1, 1>(a, out, eq, sums, add, pf, h);
    } else if (a.books == 1) {
      backward_block<BITS, AFFINE, 2, 1, 1>(a, out, eq, sums, add, pf, h);
    } else if (a.planes == 1) {
      backward_block<BITS, AFFINE, 1, 2, 1>(a, out, eq, sums, add, pf, h);
    } else {
      backward_block<BITS, AFFINE, 2, 2, 1>(a, out, eq, sums, add, pf, h);
    }
    out += 1;
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

void tile_forward_avx512vnni(const TileArgs& a, const int8_t* wq, int32_t* dots,
                             const Prefetch& ahead) noexcept {
  static constexpr ForwardFn* kByBits[] = {forward_kind<1>, forward_kind<2>, forward_kind<3>,
                                           forward_kind<4>, forward_kind<5>, forward_kind<6>,
                                           forward_kind<7>, forward_kind<8>};
  kByBits[a.bits - 1](a, wq, dots, ahead);
}

void tile_backward_avx512vnni(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                              const Prefetch& ahead) noexcept {
  static constexpr BackwardFn* kByBits[] = {backward_kind<1>, backward_kind<2>, backward_kind<3>,
                                            backward_kind<4>, backward_kind<5>, backward_kind<6>,
                                            backward_kind<7>, backward_kind<8>};
  kByBits[a.bits - 1](a, eq, sums, add, ahead);
}

}  // namespace torchext::cpu
