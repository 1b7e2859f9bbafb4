// Integer products of tile4 codes with vectors of signed bytes: both passes of a mini-batch, and
// the products of a whole data set.
#pragma once

#include "sgd_epoch.h"

namespace torchext::cuda {

constexpr int kDotTiles = 2;             // tiles of a block: 128 rows
constexpr int64_t kSliceColumns = 4096;  // columns of a block, at most
constexpr int64_t kSplitTiles = 64;      // tiles that a block adds up, at most
constexpr int64_t kPieceRows = 256;      // rows whose losses add up in float32

/// Tiles [0, tiles) at `codes`, aligned to 16 bytes; in an epoch those of a batch, at most `tiles`.
struct TileMatrix {
  const uint8_t* codes;  // in an epoch: of the data set, or (`gathered`) of the batch
  bool gathered;
  const uint8_t* table;  // [planes*books, cols, 2^bits], aligned to 16; null: the code itself
  int64_t tiles, cols;
  int bits, planes, books;
};

/// dots[vector][set][row] += sum over columns of T * q[vector][col]; zeroed by the caller.
struct DotParams {
  TileMatrix a;
  int vectors;
  const int8_t* q;  // [vectors, q_stride], zero from `cols` on; null: step.w is rounded
  int64_t q_stride;
  int32_t* dots;
  int64_t stride;  // of the rows of `dots`
  int64_t slices;  // parts of the columns (set by the launch)
  EpochStep step;  // with q null: residuals follow as soon as a piece of rows is complete
};

/// sums[slab][vector][plane][col] += sum over the rows of a slab of T * q[vector][row]; zeroed by
/// the caller.
struct SumParams {
  TileMatrix a;
  int vectors;
  const int8_t* q;  // [vectors, q_stride]; null: step.e is rounded
  int64_t q_stride;
  int32_t* sums;
  int64_t slab_tiles, slab_sums;  // tiles of a slab, and from its sums to the next one's
  int64_t split_tiles;            // of a block: a part of a slab, at most kSplitTiles
  EpochStep step;  // with q null: the update follows when a block of 64 columns is complete
};

cudaError_t launch_dots(DotParams p, cudaStream_t stream) noexcept;
cudaError_t launch_sums(const SumParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
