// Kernels around the integer products of a whole data set: vectors to digits, integers to scores
// and sums, every float step in the order of the CPU (kernels/linear/code_products.h).
#pragma once

#include <cmath>
#include <cstring>

#include "../launch.h"
#include "kernels/rounding.h"

namespace torchext::cuda {

TX_DEVICE int32_t top_of_digits(int digits) { return digits == 1 ? 127 : 127 * 128 + 63; }

/// Splits r into `digits` signed bytes, high digit first, `stride` apart.
TX_DEVICE void put_digits(int32_t r, int digits, int64_t stride, int8_t* to) {
  if (digits == 1) {
    *to = static_cast<int8_t>(r);
    return;
  }
  const int32_t high = (r + 64 + (128 << 8)) / 128 - 256;  // floor((r + 64) / 128)
  *to = static_cast<int8_t>(high);
  to[stride] = static_cast<int8_t>(r - 128 * high);
}

/// The sum of one or two digits, of one or two bytes each, from sums that are `stride` apart.
TX_DEVICE double value_of(const int32_t* from, int64_t stride, int digits, int planes) {
  double high = from[0], low = 0.0;
  if (planes == 2) high += 256.0 * from[stride];
  if (digits == 1) return high;
  low = from[planes * stride];
  if (planes == 2) low += 256.0 * from[3 * stride];
  return 128.0 * high + low;
}

/// Rounded vectors x, a block an output.
struct RoundVectors {
  struct Params {
    double* x;  // [outputs, cols]
    const float* grid;
    const double *offset, *shift;  // see CodeGram; may be null
    int64_t cols, stride;
    int digits;
    int8_t* q;  // [outputs*digits, stride]
    double *sigma, *beta;
  };
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t o = t.block();
    double* x = p.x + o * p.cols;
    auto* shared = t.shared<double>();
    double peak = 0.0;
    for (int64_t j = t.thread(); j < p.cols; j += kThreads) {
      const double size = std::fabs(static_cast<double>(p.grid[2 * j + 1]) * x[j]);
      peak = size > peak ? size : peak;
    }
    shared[t.thread()] = peak;
    t.sync();
    for (int half = kThreads / 2; half > 0; half /= 2) {
      const double other = t.thread() < half ? shared[t.thread() + half] : 0.0;
      if (other > shared[t.thread()]) shared[t.thread()] = other;
      t.sync();
    }
    const double scale = shared[0] / top_of_digits(p.digits),
                 inverse = scale > 0.0 ? 1.0 / scale : 0.0;
    t.sync();
    // The sums run in the order of the columns, as on the CPU: one thread adds what all prepare.
    double beta = 0.0;
    for (int64_t first = 0; first < p.stride; first += kThreads) {
      const int64_t j = first + t.thread();
      double product = 0.0;
      if (j < p.stride) {
        double r = 0.0;
        if (j < p.cols) {
          const double step = p.grid[2 * j + 1];
          r = std::rint(step * x[j] * inverse);
          if (step > 0.0) x[j] = r * scale / step;  // a column of one value keeps its x
          product = p.grid[2 * j] * x[j];
        }
        put_digits(static_cast<int32_t>(r), p.digits, p.stride, p.q + o * p.digits * p.stride + j);
      }
      beta = add_in_order(t, shared, product, beta, p.cols - first);
    }
    if (p.offset != nullptr) beta += p.offset[o];
    for (int64_t first = 0; p.shift != nullptr && first < p.cols; first += kThreads) {
      const int64_t j = first + t.thread();
      beta = add_in_order(t, shared, j < p.cols ? p.shift[j] * x[j] : 0.0, beta, p.cols - first);
    }
    if (t.thread() == 0) {
      p.sigma[o] = scale;
      p.beta[o] = beta;
    }
  }

  /// beta plus the first `count` threads' terms in turn; right in thread 0.
  TX_DEVICE static double add_in_order(const Thread& t, double* shared, double term, double beta,
                                       int64_t count) {
    shared[t.thread()] = term;
    t.sync();
    for (int k = 0; t.thread() == 0 && k < kThreads && k < count; ++k) beta += shared[k];
    t.sync();
    return beta;
  }
};

/// Integer products of a round's rows become scores.
struct Scores {
  struct Params {
    const int32_t* dots;  // [outputs*digits, planes, rows]
    int64_t dot_stride, rows, z_stride;
    int outputs, digits, planes;
    const double *sigma, *beta;
    float* z;
  };
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t o = t.row();
    const double sigma = p.sigma[o], beta = p.beta[o];
    for (int64_t k = t.index(); k < p.rows; k += t.count()) {
      const double value = value_of(p.dots + o * p.digits * p.planes * p.dot_stride + k,
                                    p.dot_stride, p.digits, p.planes);
      p.z[o * p.z_stride + k] = static_cast<float>(sigma * value + beta);
    }
  }
};

/// Rounds slabs of e (times `weight`), a block a slab and output.
struct RoundSlabs {
  struct Params {
    const float *e, *weight;
    int64_t e_stride, rows, slab_rows, stride;
    int outputs, digits;
    int8_t* q;              // [outputs*digits, stride], zero beyond the rows up to a whole tile
    double *scale, *total;  // [slabs, outputs]
  };
  static constexpr int kThreads = 256;

  TX_DEVICE static float value(const Params& p, int64_t o, int64_t k) {
    if (k >= p.rows) return 0.0f;
    const float e = p.e[o * p.e_stride + k];
    return p.weight != nullptr ? e * p.weight[k] : e;
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t slab = t.block(), o = t.row(), first = slab * p.slab_rows,
                  whole = (p.rows + 63) / 64 * 64, rest = first + p.slab_rows,
                  end = rest < whole ? rest : whole;
    auto* shared = t.shared<int32_t>();
    if (t.thread() < 2) shared[t.thread()] = 0;
    t.sync();
    int32_t bits = 0;
    for (int64_t k = first + t.thread(); k < end; k += kThreads) {
      const int32_t size = magnitude(value(p, o, k));
      bits = size > bits ? size : bits;
    }
    t.most(shared, bits);
    t.sync();
    float peak;
    std::memcpy(&peak, shared, sizeof peak);
    const float top = static_cast<float>(top_of_digits(p.digits)), unit = peak / top,
                inverse = inverse_step(unit);
    int32_t sum = 0;  // of 4,096 rows of 14 bits: no overflow
    for (int64_t k = first + t.thread(); k < end; k += kThreads) {
      float r = (value(p, o, k) * inverse + 12582912.0f) - 12582912.0f;  // to nearest, ties to even
      r = r != r ? 0.0f : r < -top ? -top : r > top ? top : r;
      const auto q = static_cast<int32_t>(r);
      put_digits(q, p.digits, p.stride, p.q + o * p.digits * p.stride + k);
      sum += q;
    }
    t.add(shared + 1, sum);
    t.sync();
    if (t.thread() == 0) {
      p.scale[slab * p.outputs + o] = inverse != 0.0f ? static_cast<double>(unit) : 0.0;
      p.total[slab * p.outputs + o] = static_cast<double>(shared[1]);
    }
  }

  TX_DEVICE static int32_t magnitude(float v) {
    const float size = v < 0.0f ? -v : v;
    int32_t bits = 0;
    if (size > 0.0f) std::memcpy(&bits, &size, sizeof bits);
    return bits;
  }
};

/// Integer column sums of slabs, in order, onto g; column `cols` of a wider g takes the sum of e.
struct AddSlabs {
  struct Params {
    const int32_t* sums;  // [slabs][outputs*digits][planes][np]
    int64_t slab_sums, slabs, cols, np, g_stride;
    int outputs, digits, planes;
    const float* grid;
    const double *scale, *total;
    double* g;
  };
  static constexpr int kThreads = 64;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t o = t.row();
    for (int64_t j = t.index(); j < p.g_stride; j += t.count()) {
      double g = p.g[o * p.g_stride + j];
      for (int64_t s = 0; s < p.slabs; ++s) {
        const double scale = p.scale[s * p.outputs + o], total = p.total[s * p.outputs + o];
        if (j == p.cols) {
          g += scale * total;
          continue;
        }
        const double value = value_of(p.sums + s * p.slab_sums + o * p.digits * p.planes * p.np + j,
                                      p.np, p.digits, p.planes);
        g += scale * (static_cast<double>(p.grid[2 * j]) * total +
                      static_cast<double>(p.grid[2 * j + 1]) * value);
      }
      p.g[o * p.g_stride + j] = g;
    }
  }
};

}  // namespace torchext::cuda
