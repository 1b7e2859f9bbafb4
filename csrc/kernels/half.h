// bfloat16 and float16 as bit patterns: exact widening, rounding to nearest even.
//
// Integer arithmetic only, so that every instruction set gives the same bits. NaN becomes the one
// quiet NaN of its sign.
#pragma once

#include "number_bits.h"

namespace torchext {

TX_HD float from_bfloat16(uint16_t half) { return float_from_bits(uint32_t{half} << 16); }

TX_HD uint16_t to_bfloat16(float value) {
  const uint32_t bits = float_bits(value);
  const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const uint32_t nan = (bits >> 16 & 0x8000u) | 0x7FC0u;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

TX_HD float from_float16(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, rest = half & 0x7FFFu;
  // Subnormals: the fraction as an integer times 2^-24 is exact.
  const uint32_t small = float_bits(static_cast<float>(static_cast<int32_t>(rest)) * 0x1p-24f);
  const uint32_t normal = rest >= 0x7C00u ? (rest << 13 | 0x7F800000u) : (rest << 13) + 0x38000000u;
  return float_from_bits(sign | (rest < 0x400u ? small : normal));
}

TX_HD uint16_t to_float16(float value) {
  const uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
  // Below 2^-14: adding 0.5 puts the unit of 2^-24 at the end of the fraction, and rounds to it.
  const uint32_t small = float_bits(float_from_bits(rest) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (rest - 0x38000000u + 0xFFFu + (rest >> 13 & 1u)) >> 13;
  const uint32_t finite = rest < 0x38800000u ? small : normal;
  const uint32_t large = rest > 0x7F800000u ? 0x7E00u : 0x7C00u;  // NaN, or infinity
  return static_cast<uint16_t>(sign | (rest >= 0x477FF000u ? large : finite));
}

}  // namespace torchext
