// Prepares a column's levels for the search, and runs the tile kernels over chunks of rows.
#pragma once

#include <cstdint>
#include <vector>

#include "anchor_loss.h"
#include "encode.h"

namespace torchext::cpu {

/// Owns the arrays that an EncodePlan points to.
struct EncodeSetup {
  EncodePlan plan{};
  AnchorLoss loss = AnchorLoss::squared_error;
  std::vector<double> mean, scale, inverse_scale, x0;
  std::vector<float> thresholds, levels, upper, lo, step, inverse, bounds;
  std::vector<int32_t> last;
  std::vector<double> intercept;  // [outputs]
};

/// What the caller knows; pointers are row-major and unpadded, null where optional.
struct EncodeOptions {
  int64_t cols = 0;
  int bits = 0;
  EncodeMode mode = EncodeMode::nearest;
  Key key{};  // of the user
  uint32_t copy = 0;
  const double *mean = nullptr, *scale = nullptr;  // [cols]
  const float* grid = nullptr;                     // [cols, 2]: lo, step; used if levels is null
  const float* levels = nullptr;     // [cols, count], ascending, padded with the last one
  int64_t count = 0;                 // levels per column
  const float* bounds = nullptr;     // [cols, 2]
  const float* x0 = nullptr;         // [outputs, cols]
  const float* intercept = nullptr;  // [outputs]
  int64_t outputs = 0;
  AnchorLoss loss = AnchorLoss::squared_error;
};

/// Levels a code of `bits` bits distinguishes in a mode: 2^bits, for double sampling 2^(bits-2)
/// + 1.
inline int64_t encode_level_count(EncodeMode mode, int bits) noexcept {
  return mode == EncodeMode::twice ? (int64_t{1} << (bits - 2)) + 1 : int64_t{1} << bits;
}

void encode_setup(const EncodeOptions& options, EncodeSetup* setup);

/// The rows of one call. Pointers start at its first row; `codes` too.
struct EncodeRows {
  const void* x;
  bool f64;
  int64_t row_stride, row0, rows;
  const int64_t* position;  // [rows] in the source; null: row0, row0 + 1, ..
  const float* y;           // [rows, outputs] or null
  const float* weight;      // [rows] or null
  uint8_t* codes;
};

/// Doubles of one chunk's sums: [kMoments + 4*outputs][cols], then totals [4][outputs + 1]: per
/// output the sums of w y, w loss at x0, w l'(z), w l'(zq); the last column starts with the sum of
/// w.
int64_t encode_sums_size(const EncodePlan& plan) noexcept;

/// Doubles of working memory that encode_chunk needs (about 12 bytes per value of a tile).
int64_t encode_scratch_size(const EncodePlan& plan) noexcept;

/// Encodes chunk number `chunk` (1024 rows) and writes its sums and clip counts (int64 [cols],
/// added to).
void encode_chunk(const EncodeSetup& setup, const EncodeRows& rows, int64_t chunk, double* scratch,
                  double* sums, int64_t* clipped) noexcept;

}  // namespace torchext::cpu
