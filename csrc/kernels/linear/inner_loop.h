// Inner epoch of SVRG and of its integer form HALP for linear models.
//
// The centre w~ and its gradient g stay fixed, the displacement z moves:
//   z <- z - alpha * (v_i (l'(phi_i + s) - l'(phi_i)) x_i + g + lambda z),   s = x_i . z,
// for rows i drawn with replacement; phi_i = x_i . w~ is cached, so a step reads one row. The loop
// over the columns that updates z also forms the product of the new z with the next row, and
// fetches rows of later steps.
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
  int64_t steps;
  bool intercept;  // a further, unpenalised column that is the same in every row
  double alpha, l2;
  Key key;
  uint32_t stream;
};

/// Draw numbers of an epoch's key.
enum LoopDraw : uint32_t {
  kUpdateNoise = 0,  // `shift` bits a lane: words (t C + c) 2 shift ..
  kCoefficient = 1,  // element t C + c
  kDriftNoise = 2,   // element (refresh C + c) stride + j
  kDecay = 3,        // element t
  kRow = 4,          // element t
};

/// Four rows of later steps are fetched at a time, a quarter of each in one step: rows are random,
/// so the processor finds four streams to follow where one would end before it is up to speed.
/// Lines go to the second-level cache in the order stream[0], stream[1], .., each 64 bytes on.
constexpr int kStreams = 4;
struct RowsAhead {
  const uint8_t* stream[kStreams];
};
// A macro: g++ 12 drops calls of a function that only prefetches.
#define TX_FETCH_ROWS(ahead, line) \
  __builtin_prefetch((ahead).stream[(line) % kStreams] + (line) / kStreams * 64, 0, 2)

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

TX_HD HalpRanges halp_ranges(HalpFormat format) {
  switch (format) {
    case HalpFormat::z8: return {127, 127, 127, 32767, 8};
    case HalpFormat::z16: return {127, 32767, 32767, (1 << 23) - 1, 8};
    default: return {32767, 32767, 32767, (1 << 30) - (1 << 25), 16};
  }
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
  int32_t* gammas;       // [steps, outputs], what was used; or null
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

struct HalpKernels {
  HalpStepFn* step[3];
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

SvrgStepFn svrg_step_ref, svrg_step_avx2, svrg_step_avx512;
SvrgStepFn* svrg_step_kernel() noexcept;

/// One epoch; throws std::bad_alloc.
void svrg_epoch(const SvrgEpoch& e);

}  // namespace torchext::cpu
