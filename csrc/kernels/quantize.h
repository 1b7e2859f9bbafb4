// Quantization of float32 arrays to packed codes and back: what a kernel gets.
//
// Scheme and codes: symmetric q*step with code q + Q; affine lo + step*code; levels
// table[code]*step. Element i belongs to channel (i / inner) % channels: one tensor-wide scale is
// inner = n, a scale per row of [R, C] is inner = C, per column inner = 1, per bucket inner =
// bucket size.
#pragma once

#include <cstdint>

#include "pack.h"
#include "rounding.h"

namespace torchext {

enum class Scheme : int { symmetric, affine, levels };

/// One entry per channel. inverse and step already have spacings below 2^-126 as 0.
struct Scales {
  const float* inverse;
  const float* step;
  const float* lo;  // affine only
  int64_t channels;
  int64_t inner;
};

/// Ascending tables, `count` entries each (2..256); one table for all channels or one per channel.
struct LevelTables {
  const float* values;
  const int32_t* last;  // index of the last distinct entry of each table
  int32_t count;
  int64_t stride;  // 0: shared; count: one per channel
};

struct Format {
  Scheme scheme;
  int bits;
  Scales scales;
  LevelTables levels;
};

struct QuantizeParams {
  Format format;
  const float* x;
  uint8_t* codes;  // packed (quantize, dequantize); unused by the round trip
  float* y;        // values (dequantize, round trip)
  int64_t n;
  bool stochastic;
  Key key;
  uint32_t stream;
};

namespace cpu {

/// Work on elements [begin, end) of the whole arrays; begin is a multiple of 64, end too unless it
/// is n. Codes of values without one (NaN in affine and level formats) are 0.
struct QuantizeKernels {
  bool (*quantize)(const QuantizeParams&, int64_t begin,
                   int64_t end) noexcept;  // true: met such a value
  void (*dequantize)(const QuantizeParams&, int64_t begin, int64_t end) noexcept;
  void (*round_trip)(const QuantizeParams&, int64_t begin, int64_t end) noexcept;  // NaN stays NaN
  void (*pack)(const uint8_t* codes, int bits, uint8_t* packed, int64_t begin,
               int64_t end) noexcept;
  void (*unpack)(const uint8_t* packed, int bits, uint8_t* codes, int64_t begin,
                 int64_t end) noexcept;
};

extern const QuantizeKernels quantize_ref, quantize_avx2, quantize_avx512;

/// The kernels of the instruction set in use.
const QuantizeKernels& quantize_kernels() noexcept;

}  // namespace cpu
}  // namespace torchext
