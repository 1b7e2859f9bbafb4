// What the kernels of an epoch share: scales and draws of a step, and the update of 64 columns.
#pragma once

#ifndef TX_ONE_LANE
#define TX_ONE_LANE
#endif
#include "../last_block.h"
#include "../warp_reduce.h"
#include "kernels/linear/step_rules.h"
#include "kernels/rounding.h"
#include "sgd_epoch.h"
#include "tile_codes.cuh"
#include "tile_products.h"

namespace torchext::cuda {

/// Rows of this step's batch; none if `order` names no batch.
struct BatchRows {
  int64_t first, count;
};
TX_DEVICE BatchRows rows_of(const EpochStep& p) {
  const int64_t number = p.order[p.step], batches = (p.rows + p.batch - 1) / p.batch;
  if (number < 0 || number >= batches) return {0, 0};
  const int64_t first = number * p.batch, rest = p.rows - first;
  return {first, rest < p.batch ? rest : p.batch};
}

/// Tiles that a launch reads: all, or in an epoch those of the batch.
struct TileRange {
  const uint8_t* codes;
  int64_t count, bytes;  // bytes of a tile
};
TX_DEVICE TileRange tiles_of(const TileMatrix& a, const EpochStep& p, bool whole) {
  const int64_t bytes = (a.cols + 3) / 4 * 32 * a.bits;
  if (whole) return {a.codes, a.tiles, bytes};
  const BatchRows rows = rows_of(p);
  return {a.codes + (a.gathered ? 0 : rows.first / 64 * bytes), (rows.count + 63) / 64, bytes};
}

TX_DEVICE Key step_key(const EpochStep& p, Purpose purpose) {
  return fold_in(fold_in(Key{p.key[0], p.key[1]}, purpose),
                 p.first_step + static_cast<uint32_t>(p.step));
}

TX_DEVICE float top_of(int bits) { return static_cast<float>((1 << (bits - 1)) - 1); }

/// Bits of |v|, which order like the numbers; 0 for NaN: a maximum passes over it.
TX_DEVICE int32_t magnitude_bits(float v) {
  const float a = cpu::absolute(v);
  return a > 0.0f ? cpu::bits_of(a) : 0;
}

/// Largest of 32 lanes into *peak.
TX_DEVICE void raise_peak(const Thread& t, int32_t* peak, int32_t bits) {
  bits = warp_largest(bits, t);
  if (t.lane() == 0 && bits > 0) t.most(peak, bits);
}

/// Spacing of a rounding to `bits` bits.
struct Spacing {
  float raw, inverse, used;  // used: 0 where the inverse would overflow
};
TX_DEVICE Spacing spacing_of(float raw) {
  const float inverse = inverse_step(raw);
  return {raw, inverse, inverse != 0.0f ? raw : 0.0f};
}
TX_DEVICE Spacing spacing_of(int32_t peak, int bits) {
  return spacing_of(cpu::float_of(peak) / top_of(bits));
}

/// 16-bit uniform of element 8 block + k.
TX_DEVICE float uniform16(const Words& words, int k) {
  return static_cast<float>(words.w[k / 2] >> (16 * (k % 2)) & 0xFFFFu) * 0x1p-16f;
}

TX_DEVICE int32_t round_one(float v, float inverse, float uniform, int32_t top) {
  const float t = v * inverse;
  return t != t ? -top : cpu::round_rule(t, uniform, top);
}

/// The intercept as the prediction sees it: with variance reduction its distance from x0's.
TX_DEVICE float offset_of(const EpochStep& p, int64_t o) {
  const float b = p.intercept[o];
  const bool moved = p.variance_reduced && p.x0 != nullptr && p.x0_cols > p.cols;
  return moved ? b - p.x0[o * p.x0_cols + p.cols] : b;
}

/// Residual of row k of the batch, before the weight of padding: {0, 0} beyond the last row.
TX_DEVICE cpu::Residual residual_at(const EpochStep& p, BatchRows rows, int64_t k, int64_t o,
                                    float z) {
  if (k >= rows.count) return {0.0f, 0.0f};
  const int64_t at = (rows.first + k) * p.outputs + o;
  const bool moved = p.logistic && p.variance_reduced;
  const bool given = p.y != nullptr && !(p.variance_reduced && !p.logistic);
  cpu::Residual r =
      cpu::residual_rule(p.logistic, moved, z, given ? p.y[at] : 0.0f, moved ? p.z0[at] : 0.0f);
  if (p.weight != nullptr) {
    const float weight = p.weight[rows.first + k];
    r.e *= weight;
    r.loss *= weight;
  }
  return r;
}

constexpr int kUpdateThreads = 256;  // four outputs of 64 columns

/// Moves x in 64 columns of outputs first .. first + count - 1 (at most 4) along gradient(o, j), or
/// only prepares w and the rest for the next step. `products`: 256 floats of shared memory.
template <class Gradient>
TX_DEVICE void update_columns(const EpochStep& p, const Thread& t, int64_t block, int first,
                              int count, bool move, float* products, const Gradient& gradient) {
  const int c = t.thread() % 64, k = t.thread() / 64;
  const int64_t o = first + k, j = 64 * block + c;
  const bool active = k < count && o < p.outputs;
  float w = 0.0f, product = 0.0f;
  if (active && j < p.cols) {
    float x = p.x[o * p.cols + j];
    const float centre = p.x0 != nullptr ? p.x0[o * p.x0_cols + j] : 0.0f;
    if (move) {
      const cpu::UpdateParts parts{
          true,         p.x0 != nullptr, p.constant != nullptr, p.shrink != nullptr,
          p.l1 != 0.0f, p.l2 != 0.0f,    p.average != nullptr};
      const auto gamma = static_cast<float>(p.gamma[p.step]);
      x = cpu::update_rule(parts, x, gradient(o, j),
                           parts.constant ? p.constant[o * p.constant_cols + j] : 0.0f,
                           parts.shrink ? p.shrink[j] : 0.0f, centre, gamma, p.l2, gamma * p.l1);
      p.x[o * p.cols + j] = x;
      if (parts.average) p.iterates[o * p.np + j] += static_cast<double>(x);
    }
    const float v = p.variance_reduced ? x - centre : x;
    w = (p.values ? 1.0f : p.grid[2 * j + 1]) * v;
    product = p.values ? 0.0f : p.grid[2 * j] * v;
  }
  if (active) p.w[o * p.np + j] = w;
  products[t.thread()] = product;
  t.sync();
  if (active && c < 16) {
    float beta = 0.0f;
    TX_UNROLL
    for (int part = 0; part < 64; part += 16) beta += products[t.thread() + part];
    p.beta_lanes[(o * (p.np / 64) + block) * 16 + c] = beta;
  }
  // A warp's lanes belong to one output.
  raise_peak(t, p.w_peak + (active ? o : 0), active ? magnitude_bits(w) : 0);
}

/// The step of the intercept of output o.
TX_DEVICE void move_intercept(const EpochStep& p, int64_t o, float gradient) {
  float b = p.intercept[o];
  if (p.fit_intercept) {
    const bool term = p.constant != nullptr && p.constant_cols > p.cols;
    const float h = term ? p.constant[o * p.constant_cols + p.cols] : 0.0f;
    b -= static_cast<float>(p.gamma[p.step]) * (gradient + h);
  }
  p.intercept[o] = b;
  if (p.average != nullptr) p.average[o * (p.cols + 1) + p.cols] += static_cast<double>(b);
}

/// Once all columns of an output are up to date, by one warp: the scale of the next model copy,
/// beta, and (in a step) losses and intercept.
TX_DEVICE void finish_output(const EpochStep& p, const Thread& t, int64_t o) {
  const int64_t blocks = p.np / 64;
  const int l = t.lane() % 16;
  float beta = 0.0f;
  for (int64_t b = 0; b < blocks; ++b) beta += load_past(p.beta_lanes + (o * blocks + b) * 16 + l);
  TX_UNROLL
  for (int half = 8; half > 0; half /= 2) beta += t.shuffle_xor(beta, half);
  const BatchRows rows = p.step < 0 ? BatchRows{0, 0} : rows_of(p);
  if (!p.values && rows.count > 0) {
    const int64_t pieces = (p.batch_rows + 255) / 256, used = ((rows.count + 63) / 64 + 3) / 4;
    double total = p.totals[o * 32 + t.lane()];
    for (int book = 0; book < p.books; ++book) {
      const float* lanes = p.lanes + (o * p.books + book) * pieces * 32 + t.lane();
      for (int64_t i = 0; i < used; ++i) total += static_cast<double>(lanes[i * 32]);
    }
    p.totals[o * 32 + t.lane()] = total;
  }
  if (t.lane() != 0) return;
  p.beta[o] = beta;
  if (p.model_bits <= 8) {
    p.model_scale[o] = cpu::float_of(load_past(p.w_peak + o)) / top_of(p.model_bits);
  }
  p.w_peak[o] = 0;
  if (rows.count > 0) {
    const auto taken = static_cast<float>(rows.count * p.books);
    float gradient = 0.0f;
    if (p.values) {
      const float scale = 1.0f / taken;
      float sum = 0.0f;
      if (p.residual_bits <= 8) {
        sum += static_cast<float>(p.eq_total[o]) * spacing_of(p.e_peak[o], p.residual_bits).raw;
      } else {
        const int64_t used = (rows.count + p.segment_rows - 1) / p.segment_rows;
        for (int64_t i = 0; i < used; ++i) {
          for (int k = 0; k < 16; ++k) sum += p.segment_sum[(i * p.outputs + o) * 16 + k];
        }
      }
      gradient = sum * scale;
    } else {
      const float scale = spacing_of(p.e_peak[o], p.residual_bits).used / taken;
      gradient = scale * static_cast<float>(load_past(p.eq_total + o));
    }
    move_intercept(p, o, gradient);
    p.counted[o] += static_cast<double>(rows.count);
  }
  p.e_peak[o] = 0;
  if (p.gradient_bits != 0) p.g_peak[o] = 0;
  if (p.values) p.eq_total[o] = 0;
}

/// The last block of those that updated outputs first .. first + count - 1 finishes them.
TX_DEVICE void finish_outputs(const EpochStep& p, const Thread& t, int first, int count,
                              int* flag) {
  if (!last_to_arrive(t, p.all_done + first, static_cast<uint32_t>(p.np / 64), flag)) return;
  if (t.warp() < count && first + t.warp() < p.outputs) finish_output(p, t, first + t.warp());
}

}  // namespace torchext::cuda
