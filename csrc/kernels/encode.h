// Second pass over a data set: values to codes in tile4, and every sum that training needs, exact.
//
// A value x of column j becomes a = fl32((x - mean_j) / scale_j), computed in double. With the
// levels L_0 <= .. <= L_last of the column (L_last the last distinct one)
//   i = clamp(#{levels <= a} - 1, 0, last - 1),  f = fl(fl(a - L_i) / fl(L_{i+1} - L_i)),
//   nearest:    the upper level iff a > fl((L_i + L_{i+1}) / 2);
//   stochastic: the upper level iff u < f, u the 24-bit uniform of element row*pitch + col, draw 0;
//   double:     base i and two independent bits (draws 0 and 1), code = i | d1 << (bits-2) | d2 <<
//   (bits-1).
// Both rules count how many thresholds lie below a, so one search serves them (see
// encode_plan.cpp).
//
// Sums are doubles in an order that depends on nothing but the row number: inside a tile of 64 rows
// lane r % 8 adds its rows in order by fma, then lanes join by h = 4, 2, 1; tiles of a chunk of
// 1024 rows join in order, chunks in order. Hence any chunking of the source (in multiples of 1024
// rows), any number of threads and every instruction set give the same bits.
#pragma once

#include <cstdint>

#include "philox.h"

namespace torchext::cpu {

constexpr int64_t kEncodeTile = 64;
constexpr int64_t kEncodeChunk = 1024;
constexpr int64_t kMomentSlots =
    8;  // doubles kept per column while encoding; kMoments of them are used
constexpr int64_t kMoments = 6;
constexpr int64_t kOutputSums = 4;

/// Row of `sums` (all weighted by w_k). In double mode the average of both draws stands for q in
/// kSquaredError, kDecoded and the output sums, and q^2 means q1*q2, the diagonal of the symmetric
/// Gram.
enum Moment : int {
  kSquaredError = 0,  // (q - a)^2
  kVariance = 1,  // v = (L_{i+1} - a)(a - L_i), the variance of a draw; 0 for nearest and outside
                  // the levels
  kVarianceSquare = 2,
  kExactSquare = 3,    // a^2
  kDecodedSquare = 4,  // q^2
  kDecoded = 5,        // q
};

/// Row kMoments + 4*o + ... of `sums` for output o.
enum OutputSum : int {
  kExactTarget = 0,    // a y
  kErrorTarget = 1,    // (q - a) y
  kExactGradient = 2,  // a l'(z, y), z = a x0 + intercept
  kDecodedGradient =
      3,  // q l'(zq, y), zq = q x0 + intercept; double: (q1 l'(zq2) + q2 l'(zq1)) / 2
};

/// Whether a quotient by `scale` may be formed from its inverse and exact remainders: those stay
/// above the subnormal numbers wherever the quotient is not 0 in float, and nothing overflows that
/// a division would not.
static inline bool quotient_by_inverse(double scale) {
  return scale >= 0x1p-800 && scale <= 0x1p800;
}

enum class EncodeMode : int { nearest = 0, stochastic = 1, twice = 2 };

/// What is known of the columns before the pass; arrays are padded to `padded` = 16*ceil(cols/16)
/// columns.
struct EncodePlan {
  int64_t cols, padded;
  int bits;
  EncodeMode mode;
  Key key;         // already folded: fold_in(fold_in(user key, DATA), copy)
  uint64_t pitch;  // elements per row of the random stream: 64*ceil(cols/64)
  const double *mean, *scale;
  const double* inverse_scale;  // fl(1/scale), null unless quotients may be formed with it
  // Table search: per column `width` = 2^steps floats (16 if less), thresholds in Eytzinger order
  // from index 1, then levels[i] = L_i and upper[i] = L_{i+1}. Codes are the number of thresholds
  // below a.
  int steps;
  int64_t width;
  const float *thresholds, *levels, *upper;
  // Affine search (levels == nullptr): L_c = fl(lo + fl(step*c)), c = 0..last; inverse = 1/step or
  // 0.
  const float *lo, *step, *inverse;
  const int32_t* last;
  const float* bounds;  // [padded][2]: values outside are counted as clipped; may be null
  const double* x0;     // [outputs][padded], the anchor; may be null
  int64_t outputs;
};

/// One tile of `rows` <= 64 rows.
struct EncodeTile {
  const void* x;  // first row of the tile
  bool f64;
  int64_t row_stride;       // elements
  const int64_t* position;  // [64] of the rows in the source, for the random stream
  int64_t rows;
  const double* weight;  // [64], zero for missing rows; null: all 64 rows are there with weight 1
  uint8_t* codes;        // the tile's bytes in tile4
  float *a, *q,
      *q2;  // [padded][64] scaled and decoded values, zero rows beyond `rows` undefined but finite
  double* z;  // [outputs][3][64]: += a x0, q x0, q2 x0 in column order; unused without an anchor
  const double* y;   // [64] targets as in GradientTile, for `targets`
  double* targets;   // [padded][kOutputSums] += those of the only output; null: gradient_tile
                     // does it
  double* moments;   // [padded][kMomentSlots] += tile sums
  int64_t* clipped;  // [cols] += values outside the bounds; unused without bounds
};

/// Scales, searches, packs and sums one tile.
using EncodeTileFn = void(const EncodePlan& plan, const EncodeTile& tile) noexcept;

/// The sums of one output over one tile: out[col][4] += sums over rows of a*y, (q-a)*y, a*e, q*eq.
/// Every factor comes premultiplied by the row's weight and is zero for missing rows.
struct GradientTile {
  const float *a, *q, *q2;         // of EncodeTile; q2 null unless the mode is twice
  const double *y, *e, *eq, *eq2;  // [64]; eq multiplies q and eq2 multiplies q2; e null: no anchor
  double* out;                     // [cols][4]
};
using GradientTileFn = void(const GradientTile& tile, int64_t cols) noexcept;

EncodeTileFn encode_tile_ref, encode_tile_avx2, encode_tile_avx512;
GradientTileFn gradient_tile_ref, gradient_tile_avx2, gradient_tile_avx512;

struct EncodeKernels {
  EncodeTileFn* encode_tile;
  GradientTileFn* gradient_tile;
  bool sums_targets;  // encode_tile heeds `targets`, which saves the second look at the tile
};

/// Kernels of the instruction set in use.
EncodeKernels encode_kernels() noexcept;

}  // namespace torchext::cpu
