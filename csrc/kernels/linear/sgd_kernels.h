// The inner loops of an SGD epoch, one table of function pointers per instruction set.
//
// Every entry gives the same bits in every table. Float entries come from one source
// (step_impl.h, dense_impl.h) compiled per instruction set; integer entries are written per set.
#pragma once

#include <cstdint>

#include "epoch.h"

namespace torchext::cpu {

/// Where the next batches lie: each call of a tile kernel touches the streams in turn, two lines at
/// a time, half of them in the forward and half in the backward pass. One core reads a single
/// stream at about 11 GB/s, but 16-18 GB/s from 4 to 16 streams.
struct Prefetch {
  const uint8_t* stream[16];
  int log2_streams;
  int64_t half;  // where the backward pass starts in each stream
};

/// At most 4 tiles of the tile4 layout and a range of column groups.
struct TileArgs {
  const uint8_t* codes;  // first tile
  int64_t tile_bytes;
  int tiles;       // 1..4
  int64_t g0, g1;  // groups; g0 is a multiple of 16
  int bits;
  const uint8_t*
      table;          // [planes*books][padded groups][4][2^bits], 64-byte aligned, or null: affine
  int64_t set_bytes;  // distance of the sets of `table`
  int planes, books;
  int outputs;
  int64_t cols;  // padded columns: stride of wq and of column sums
  int64_t rows;  // padded rows of the batch: stride of dots and of eq
};

/// dots[output][plane*books + book][row] = sum over the columns of [g0, g1) of T * wq[output][col].
using ForwardFn = void(const TileArgs& a, const int8_t* wq, int32_t* dots,
                       const Prefetch& ahead) noexcept;

/// sums[output][plane][col] (+)= sum over the rows of T * eq[output][book][row]; with two books
/// each T meets the residual of the other book. `add` false overwrites.
using BackwardFn = void(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                        const Prefetch& ahead) noexcept;

/// Running sums of one output over the rows of an epoch; lane = row mod 16 of the batch.
struct LossLanes {
  float loss[16], square[16], sum[16], peak[16];
};

/// Turns predictions of one output and one book into residuals e[0, padded).
struct ResidualArgs {
  int64_t rows, padded;  // padded is a multiple of 16; e is 0 from `rows` on
  const float* z;        // predictions, or null: from integer dots
  const int32_t* dots;   // [slices][plane][row]
  int slices, planes;
  int64_t slice_stride, plane_stride;
  float sigma, beta, intercept;
  const float *y, *weight, *z0;  // readable up to `padded`, or null
  Loss loss;
  bool variance_reduced;
  float* e;
};

/// Gradient, update and the next model copy of one output.
struct UpdateArgs {
  const int32_t* sums;  // integer column sums [planes][cols], or null: `gradient` holds g
  int planes;
  int64_t cols;
  float scale, sum;                                            // sigma_e/B and the sum of eq
  const float *gradient, *lo, *step, *x0, *constant, *shrink;  // the last three may be null
  float gamma, l1, l2;
  bool variance_reduced;
  float *x, *w, *beta_lanes;  // beta_lanes: [cols/64][16]
  double* average;            // or null
};

struct SgdKernels {
  ForwardFn* forward;
  BackwardFn* backward;
  /// u16 draws of elements [begin, end), multiples of 64: half i mod 8 of block i/8.
  void (*draws)(Key key, uint32_t stream, uint32_t draw, int64_t begin, int64_t end,
                uint16_t* out) noexcept;
  /// q = clamp(floor(t) + [u < t - floor(t)], +-qmax) with t = v*inv; returns the sum of q.
  int32_t (*round)(const float* v, const uint16_t* u, float inv, float qmax, int64_t n,
                   int8_t* q) noexcept;
  void (*residual)(const ResidualArgs& a, LossLanes& lanes) noexcept;
  /// g into `out` for columns [begin, end), multiples of 64; returns max|g|.
  float (*gradient)(const UpdateArgs& a, int64_t begin, int64_t end, float* out) noexcept;
  /// Updates x (if gamma is not 0 or step is wanted) and prepares w, beta_lanes; returns max|w|.
  float (*update)(const UpdateArgs& a, bool move, int64_t begin, int64_t end) noexcept;
  /// z[r] = dot(rows r, w), lanes j mod 16 with fused multiply-add, then a fixed tree. n a multiple
  /// of 16.
  void (*dense_forward)(const float* rows, int64_t pitch, int count, const float* w, int64_t n,
                        float* z, const Prefetch& ahead) noexcept;
  /// g[j] = fma(e[r], row r [j], g[j]) for r in order.
  void (*dense_backward)(const float* rows, int64_t pitch, int count, const float* e, int64_t n,
                         float* g, const Prefetch& ahead) noexcept;
};

/// The table of the instruction set in use.
const SgdKernels& sgd_kernels() noexcept;

ForwardFn tile_forward_ref, tile_forward_avx2, tile_forward_avx512vnni;
BackwardFn tile_backward_ref, tile_backward_avx2, tile_backward_avx512vnni;
const SgdKernels& sgd_step_ref() noexcept;
const SgdKernels& sgd_step_avx2() noexcept;
const SgdKernels& sgd_step_avx512() noexcept;

}  // namespace torchext::cpu
