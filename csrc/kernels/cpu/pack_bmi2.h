// Packing 64 codes in registers with PEXT/PDEP. Include from *_avx2.cpp and *_avx512.cpp only.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "../pack.h"

namespace torchext::cpu {

/// 64 codes, one a byte, to B 64-bit words: every 8 codes give 8B bits.
template <int B>
static inline void pack_words(const uint8_t* codes, uint8_t* out) {
  constexpr uint64_t kField = 0x0101010101010101ull * ((1u << B) - 1);
  uint64_t held = 0;
  int filled = 0;
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g) {
    uint64_t eight;
    memcpy(&eight, codes + 8 * g, 8);
    const uint64_t bits = _pext_u64(eight, kField);
    held |= bits << filled;
    filled += 8 * B;
    if (filled >= 64) {
      memcpy(out, &held, 8);
      out += 8;
      filled -= 64;
      held = filled > 0 ? bits >> (8 * B - filled) : 0;
    }
  }
}

/// The B bytes of codes 8g..8g+7 in the low bits, by one load that stays inside the unit.
template <int B>
static inline uint64_t eight_codes(const uint8_t* packed, int g) {
  const int at = g * B, from = at <= 8 * B - 8 ? at : 8 * B - 8;
  uint64_t word;
  memcpy(&word, packed + from, 8);
  return word >> 8 * (at - from);
}

/// The reverse: 16 codes at a time, so that the stores forward to later 16-byte loads.
template <int B>
static inline void unpack_words(const uint8_t* packed, uint8_t* codes) {
  constexpr uint64_t kField = 0x0101010101010101ull * ((1u << B) - 1);
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const uint64_t low = eight_codes<B>(packed, 2 * g), high = eight_codes<B>(packed, 2 * g + 1);
    const __m128i both = _mm_set_epi64x(static_cast<long long>(_pdep_u64(high, kField)),
                                        static_cast<long long>(_pdep_u64(low, kField)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16 * g), both);
  }
}

static inline void pack_64(const uint8_t* codes, int bits, uint8_t* out) {
  switch (bits) {
    case 1: return pack_words<1>(codes, out);
    case 2: return pack_words<2>(codes, out);
    case 3: return pack_words<3>(codes, out);
    case 4: return pack_words<4>(codes, out);
    case 5: return pack_words<5>(codes, out);
    case 6: return pack_words<6>(codes, out);
    case 7: return pack_words<7>(codes, out);
    default: memcpy(out, codes, 64);
  }
}

static inline void unpack_64(const uint8_t* packed, int bits, uint8_t* codes) {
  switch (bits) {
    case 1: return unpack_words<1>(packed, codes);
    case 2: return unpack_words<2>(packed, codes);
    case 3: return unpack_words<3>(packed, codes);
    case 4: return unpack_words<4>(packed, codes);
    case 5: return unpack_words<5>(packed, codes);
    case 6: return unpack_words<6>(packed, codes);
    case 7: return unpack_words<7>(packed, codes);
    default: memcpy(codes, packed, 64);
  }
}

}  // namespace torchext::cpu
