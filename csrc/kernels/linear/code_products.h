// Products of the whole code matrix with float vectors: what a full-batch solver asks for.
//
// A stored value is q_kj = lo_j + step_j T_kj with an unsigned integer T, so both products are
// integer products with a rounded vector of one or two signed digits, 7 or 14 bits and a sign:
//   forward:  w_j = step_j x_j becomes w'_j = sigma r_j, sigma = max|w| / top, r_j = rint(w_j /
//   sigma);
//             x is replaced by the x' with step_j x'_j = w'_j, of which z = Q x' is the exact
//             image;
//   backward: the e of a slab of rows is rounded likewise, on its own scale.
// The integers are exact and the float steps follow the row number: no bit depends on the
// instruction set or on threads.
#pragma once

#include <cstdint>

#include "sgd_kernels.h"

namespace torchext::cpu {

struct CodeMatrix {
  CodeLayout data;  // tile4
  const uint8_t* codes;
  const float* grid;  // [cols, 2]: lo, step
  const uint8_t*
      table;  // [planes][groups*4][2^bits], sets on 64-byte boundaries; null: T is the code
  int64_t set_bytes;
  int planes;
};

constexpr int64_t kSlabRows = 4096;
/// Largest magnitude of a vector's integers; two digits are 128*high + low, |low| <= 64.
static inline int32_t top_of_digits(int digits) { return digits == 1 ? 127 : 127 * 128 + 63; }

/// Splits r into `digits` int8 planes of `stride` bytes each, high digit first.
static inline void put_digits(int32_t r, int digits, int64_t stride, int8_t* to) {
  if (digits == 1) {
    *to = static_cast<int8_t>(r);
    return;
  }
  const int32_t high = (r + 64 + (128 << 8)) / 128 - 256;  // floor((r + 64) / 128)
  *to = static_cast<int8_t>(high);
  to[stride] = static_cast<int8_t>(r - 128 * high);
}

/// Rounded model of `outputs` vectors, ready for code_forward.
struct RoundedModel {
  const int8_t* digits;  // [outputs*digits][stride], stride = 64*ceil(cols/64), zero padded
  const double *sigma,
      *beta;           // [outputs]; beta = sum_j lo_j x'_j, and an intercept if there is one
  int outputs, count;  // count: digits per output
  int64_t stride;
};

/// Rounds x [outputs, cols] in place; fills digits (zeroed by the caller), sigma and beta.
void round_model(const CodeMatrix& a, double* x, int outputs, int count, int64_t stride,
                 int8_t* digits, double* sigma, double* beta);

/// z[o*z_stride + k] = sigma_o sum_j T_kj r_oj + beta_o for the rows of the tiles [begin, end).
void code_forward(const CodeMatrix& a, const RoundedModel& model, int64_t begin, int64_t end,
                  float* z, int64_t z_stride);

/// Rounds e [outputs, e_stride], `rows` of each: digits [outputs*count][stride] (zeroed by the
/// caller), scale[o] and the sum of the integers total[o].
void round_rows(const float* e, int64_t e_stride, int64_t rows, int outputs, int count,
                int64_t stride, int8_t* digits, double* scale, double* total);

/// g[o*g_stride + j] = sum_k e'_ok q_kj for the columns of the groups [begin, end), begin a
/// multiple of 16; scale and total are [slabs][outputs].
void code_backward(const CodeMatrix& a, const int8_t* digits, int64_t stride, int outputs,
                   int count, const double* scale, const double* total, int64_t begin, int64_t end,
                   double* g, int64_t g_stride);

/// Rows of a slab of code_gram: its codes stay in the cache between both products.
constexpr int64_t kGramRows = 512;

/// Both products of slab `slab`: e = v o z with the z of code_forward, rounded by round_rows; then
/// g[o*(cols + 1) + j] += sum_k e'_ok q_kj, and in column `cols` the sum of e'. v = 1 if `weight`
/// is null.
void code_gram(const CodeMatrix& a, const RoundedModel& model, const float* weight, int64_t slab,
               double* g);

}  // namespace torchext::cpu
