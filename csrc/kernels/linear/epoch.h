// One epoch of mini-batch SGD on a quantized (or float32) data set: parameters and entry points.
//
// A stored value is lo_j + step_j*T with an unsigned integer T, so the two products of a step are
// integer products. For output o, v = x (or x - x0), over the rows k of a batch of B rows:
//   w_j = step_j v_j, beta = sum lo_j v_j, sigma_w = max|w| / (2^(model_bits-1) - 1)
//   wq_j = stochastic(w_j / sigma_w),       z_k = beta + sigma_w sum_j T_kj wq_j + intercept
//   e_k = weight_k l'(z_k, y_k),            sigma_e = max|e| / (2^(residual_bits-1) - 1), eq
//   likewise g_j = sigma_e/B (lo_j sum eq + step_j sum_k T_kj eq_k) x -= gamma (g + constant + l2 x
//   - shrink (x - x0)), then x = sign(x) max(|x| - gamma l1, 0)
// Double sampling has two integers T1, T2 per code and uses the mean of T1(T2 x) and T2(T1 x).
// All float steps are elementwise or summed in a fixed order and the integers are exact: the result
// has the same bits on every instruction set and for every number of threads.
#pragma once

#include <cstdint>

#include "../layout.h"
#include "../philox.h"

namespace torchext::cpu {

enum class Loss : int { squared_error = 0, log_loss = 1 };

struct Epoch {
  CodeLayout data;
  const uint8_t* codes;  // null: `dense` holds the scaled values themselves
  const float* dense;    // [rows, pitch], pitch = 16*ceil(cols/16), zero padded
  const float* grid;     // [cols, 2]: lo, step
  const uint8_t* table;  // [planes, books, cols, 2^bits], or null: T is the code itself
  int planes;            // bytes per T: 1, or 2 (low, high)
  int books;             // integers per code: 1, or 2 for double sampling
  int outputs;
  const float* y;       // [rows, outputs], or null: 0
  const float* weight;  // [rows], or null: 1
  const float*
      z0;    // [rows, outputs]: predictions at x0 (variance-reduced non-quadratic losses), or null
  float* x;  // [outputs, cols]
  float* intercept;  // [outputs]
  const float*
      x0;  // [outputs, x0_cols], or null; column `cols` (if there) belongs to the intercept
  int64_t x0_cols;
  const float* constant;  // [outputs, constant_cols], or null; likewise
  int64_t constant_cols;
  const float* shrink;   // [cols], or null
  double* average;       // [outputs, cols + 1] += every iterate, or null
  const int64_t* order;  // [steps] batch numbers
  const double* gamma;   // [steps]
  int64_t steps;
  int64_t batch;
  Loss loss;
  float l1, l2;
  bool variance_reduced, fit_intercept;
  int model_bits, residual_bits;  // 2..8, or 32: not rounded
  int gradient_bits;              // 2..8, or 0: not rounded
  Key key;
  uint32_t first_step;
  int threads;
  double* sums;  // [3, outputs]: loss, e^2, rows
};

constexpr int64_t kMaxCols = 65536;          // 65536 * 255 * 127 < 2^31: int32 sums cannot overflow
constexpr int64_t kMaxIntegerBatch = 32768;  // likewise for columns, with two books

/// Whether the epoch runs on integers; else values are decoded to float32.
static inline bool integer_path(const Epoch& p) {
  return p.codes != nullptr && p.model_bits <= 8 && p.residual_bits <= 8 &&
         p.batch <= kMaxIntegerBatch;
}

void sgd_epoch(const Epoch& p);
void sgd_epoch_integer(const Epoch& p);
void sgd_epoch_float(const Epoch& p);

/// Decodes book `book` of `count` rows into out[i*pitch + j]; row i is index[i], or row0 + i
/// without an index.
void sgd_decode(const Epoch& p, const int64_t* index, int64_t row0, int64_t count, int book,
                float* out, int64_t pitch);

}  // namespace torchext::cpu
