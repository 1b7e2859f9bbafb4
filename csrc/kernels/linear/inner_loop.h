// Inner epoch of SVRG and of its integer form HALP for linear models.
//
// The centre w~ and its gradient g stay fixed, the displacement z moves:
//   z <- z - alpha * (v_i (l'(phi_i + s) - l'(phi_i)) x_i + g + lambda z),   s = x_i . z,
// for rows i drawn with replacement; phi_i = x_i . w~ is cached, so a step reads one row. The loop
// over the columns that updates z also forms the product of the new z with the next row, and
// fetches rows of later steps. With mini-batches the change is a mean over `batch` rows, which are
// read twice: for their products, then for the update.
#pragma once

#include <cstdint>

#include "../philox.h"
#include "exact_pass.h"

namespace torchext::cpu {

/// What both forms share. Rows are padded with zeros to `pitch` columns, a multiple of 64.
struct InnerLoop {
  const void* x;  // [rows, pitch]
  int64_t rows, pitch;
  int outputs;
  RowLoss loss;
  const float* cache;   // [rows, slope_cache_size], or null for squares
  const float* weight;  // [rows] factors v of the loss, or null
  int64_t steps, batch;
  bool intercept;  // a further, unpenalised column that is the same in every row
  double alpha, l2;
  Key key;
  uint32_t stream;
};

/// Draw numbers of an epoch's key, for step t, output c of C and row i of a batch of B.
enum LoopDraw : uint32_t {
  kUpdateNoise = 0,  // `shift` bits a lane: words (t C + c) 2 shift ..
  kCoefficient = 1,  // element (t B + i) C + c
  kDriftNoise = 2,   // element (refresh C + c) stride + j
  kDecay = 3,        // element t
  kRow = 4,          // element t B + i
};

/// Four rows of later steps are fetched at a time, a quarter of each in one step: rows are random,
/// so the processor finds four streams to follow where one would end before it is up to speed.
/// Lines come in the order stream[0], stream[1], .., each 64 bytes on: to the first-level cache if
/// the rows on their way fit in there, else to the second (on Zen 4 a step takes up to a third less
/// time with short rows in the first, and a tenth more with long ones).
constexpr int kStreams = 4;
constexpr int64_t kNearRow = 4096;  // bytes
struct RowsAhead {
  const uint8_t* stream[kStreams];
  bool near;
};
// A macro: g++ 12 drops calls of a function that only prefetches.
#define TX_FETCH_ROWS(ahead, line)                                                          \
  do {                                                                                      \
    const uint8_t* const tx_p = (ahead).stream[(line) % kStreams] + (line) / kStreams * 64; \
    (ahead).near ? __builtin_prefetch(tx_p, 0, 3) : __builtin_prefetch(tx_p, 0, 2);         \
  } while (false)

constexpr int64_t kLoopWords = 64;  // words are drawn so many at a time

/// Words of elements 4 block .. 4 block + count - 1, count a multiple of kLoopWords.
using LoopWordsFn = void(Key key, uint64_t block, uint32_t stream, uint32_t draw, int64_t count,
                         uint32_t* words) noexcept;

// ---- integers
// ------------------------------------------------------------------------------------

/// Codes of the data, bits of z, and random bits below the last place of z: 8/8/8, 8/16/8,
/// 16/16/16.
enum class HalpFormat : int { z8 = 0, z16 = 1, x16 = 2 };

/// Ranges of the codes: |x| and the intercept's column <= data, |z| <= z, |gamma| <= gamma and
/// |h| <= drift; wider would leave the 16- or 32-bit sums.
struct HalpRanges {
  int32_t data, z, gamma, drift;
  int shift;
};

/// Rows of a mini-batch: gamma has room for 1 at least.
constexpr int64_t kMostBatch = 32768;

TX_HD HalpRanges halp_ranges(HalpFormat format, int64_t batch = 1) {
  HalpRanges r = format == HalpFormat::z8 ? HalpRanges{127, 127, 127, 32767, 8}
                 : format == HalpFormat::z16
                     ? HalpRanges{127, 32767, 32767, (1 << 23) - 1, 8}
                     : HalpRanges{32767, 32767, 32767, (1 << 30) - (1 << 25), 16};
  // Of 2^31 - 1: h, noise and decay (c |z| < 2^25) leave this for the products of a batch.
  const auto room = static_cast<int32_t>((2147483647ll - r.drift - (1 << 25)) / (batch * r.data));
  if (room < r.gamma) r.gamma = room;
  return r;
}

struct HalpEpoch {
  InnerLoop loop;
  HalpFormat format;
  double dx, dz;          // spacings of data and displacement
  const double* alpha_g;  // [outputs, cols + 1]: alpha * gradient at the centre, intercept's last
  int64_t cols;
  int64_t refresh;       // steps between two roundings of alpha_g; 0: once
  bool nearest;          // no random bits (a study of what they are for)
  void* z;               // [outputs, pitch] int8 or int16, all 0; receives the result
  int32_t* z_intercept;  // [outputs], the same
  int32_t* gammas;       // [steps * batch, outputs], what was used; or null
  int64_t* clips;        // [3] added to: z, gamma, h
};

/// One step of one output: z' = clamp(z + ((r - gamma x - h - c z) >> shift)).
struct HalpStep {
  const void *x, *next;  // rows of this step and of the next one
  RowsAhead ahead;
  void* z;
  const void* drift;  // h, in the kernel's own order
  const uint32_t*
      noise;  // r: lane l of 64 is field l of `shift` bits; column j takes lane j mod 64
  int64_t n;
  int32_t gamma, decay;  // decay: c
};

/// next . z', and into clips the columns that were clamped. z8 saturates r - gamma x, minus h,
/// minus c z to 16 bits in turn; the other formats do not overflow.
using HalpStepFn = int64_t(const HalpStep& s, int64_t* clips) noexcept;

/// One step of one output over a mini-batch: z' = clamp(z + ((r - sum_i gamma_i x_i - h - c z) >>
/// shift)) in 32 bits, which nothing leaves, in every format; clips as above. h is wide.
struct HalpBatchStep {
  const void* const* x;   // rows; a last one with gamma 0 makes their number even
  const int16_t* gammas;  // as many
  int64_t rows;
  void* z;
  const int32_t* drift;
  const uint32_t* noise;
  int64_t n;
  int32_t decay;
};
using HalpBatchFn = void(const HalpBatchStep& s, int64_t* clips) noexcept;

/// x . z of n columns; fetches as many of `ahead`.
using HalpDotFn = int64_t(const void* x, const void* z, const void* ahead, int64_t n) noexcept;

/// h from alpha_g in units of the product grid, rounded with the words of elements 4 block .. and
/// clamped to +-most; counts what was clamped. Narrow: float32 to int16; wide: float64 to int32.
struct HalpDrift {
  const void* target;
  void* drift;
  int64_t n;
  int32_t most;
  Key key;
  uint64_t block;
  uint32_t stream;
  bool nearest;
};
using HalpDriftFn = void(const HalpDrift& d, int64_t* clips) noexcept;

struct HalpKernels {  // arrays: one of each format
  HalpStepFn* step[3];
  HalpDotFn* dot[3];
  HalpBatchFn* batch[3];
  HalpDriftFn *drift_narrow, *drift_wide;
  LoopWordsFn* words;
};

const HalpKernels& halp_ref() noexcept;
const HalpKernels& halp_avx2() noexcept;
const HalpKernels& halp_avx512vnni() noexcept;

/// The variant of the instruction set in use. All give the same bits.
const HalpKernels& halp_kernels() noexcept;

/// One epoch; throws std::bad_alloc.
void halp_epoch(const HalpEpoch& e);

// ---- float32
// -------------------------------------------------------------------------------------

struct SvrgEpoch {
  InnerLoop loop;
  double dx;              // factor of the rows as stored
  float unit;             // the intercept's column
  const double* alpha_g;  // [outputs, cols + 1]
  int64_t cols;
  float* z;            // [outputs, pitch], all 0; receives the result
  float* z_intercept;  // [outputs], the same
};

/// z' = fma(-step, x, fma(keep, z, minus_drift)).
struct SvrgStep {
  const float *x, *next;
  RowsAhead ahead;
  float* z;
  const float* minus_drift;
  int64_t n;
  float step, keep;
};

/// next . z', summed over 64 lanes and by halves.
using SvrgStepFn = float(const SvrgStep& s) noexcept;

/// The same over a mini-batch: z' = (fma(keep, z, minus_drift) + p_0) + p_1 .., the products of
/// kBatchPart rows each, one after another: p = .. fma(-step[1], x[1], fma(-step[0], x[0], 0)).
constexpr int64_t kBatchPart = 64;
struct SvrgBatchStep {
  const float* const* x;
  const float* step;
  int64_t rows;
  float* z;
  const float* minus_drift;
  int64_t n;
  float keep;
};
using SvrgBatchFn = void(const SvrgBatchStep& s) noexcept;

/// x . z as `step` sums it; fetches as many columns of `ahead`.
using SvrgDotFn = float(const float* x, const float* z, const float* ahead, int64_t n) noexcept;

struct SvrgKernels {
  SvrgStepFn* step;
  SvrgDotFn* dot;
  SvrgBatchFn* batch;
};

const SvrgKernels& svrg_ref() noexcept;
const SvrgKernels& svrg_avx2() noexcept;
const SvrgKernels& svrg_avx512() noexcept;

/// The variant of the instruction set in use. All give the same bits.
const SvrgKernels& svrg_kernels() noexcept;

/// One epoch; throws std::bad_alloc.
void svrg_epoch(const SvrgEpoch& e);

}  // namespace torchext::cpu
