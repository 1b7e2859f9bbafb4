// The elementwise part of an SGD step; included once by each per-ISA source.
#pragma once

#if defined(__AVX512F__)
#include "../cpu/philox_avx512.h"
#elif defined(__AVX2__)
#include "../cpu/philox_avx2.h"
#endif
#include "sgd_kernels.h"
#include "step_rules.h"

namespace torchext::cpu {
namespace {

void step_draws(Key key, uint32_t stream, uint32_t draw, int64_t begin, int64_t end,
                uint16_t* out) noexcept {
#if defined(__AVX512F__)
  for (int64_t i = begin; i < end; i += 64, out += 64) {
    __m512i words[2];
    philox_chains<1>(key, static_cast<uint64_t>(i) / 8, stream, draw, words);
    std::memcpy(out, words, sizeof words);
  }
#elif defined(__AVX2__)
  for (int64_t i = begin; i < end; i += 32, out += 32) {
    __m256i words[2];
    philox_16(key, static_cast<uint64_t>(i) / 8, stream, draw, &words[0], &words[1]);
    std::memcpy(out, words, sizeof words);
  }
#else
  for (int64_t i = begin; i < end; i += 8) {
    const Words r = draw4(key, static_cast<uint64_t>(i) / 8, stream, draw);
    for (int k = 0; k < 8; ++k) *out++ = static_cast<uint16_t>(r.w[k / 2] >> (16 * (k % 2)));
  }
#endif
}

int32_t step_round(const float* v, const uint16_t* u, float inv, float qmax, int64_t n,
                   int8_t* q) noexcept {
  const VI top = VI{} + static_cast<int32_t>(qmax);
  VI sum = {};
  for (int64_t i = 0; i < n; i += TX_LANES) {
    VH h;
    std::memcpy(&h, u + i, sizeof h);
    const VF t = load(v + i) * inv, uniform = to_float(__builtin_convertvector(h, VI)) * 0x1p-16f;
    const VI k = round_rule(t, uniform, top);
    sum += k;
    const VB narrow = __builtin_convertvector(k, VB);
    std::memcpy(q + i, &narrow, sizeof narrow);
  }
  int32_t total = 0;
  for (int l = 0; l < TX_LANES; ++l) total += sum[l];
  return total;
}

void step_residual(const ResidualArgs& a, LossLanes& lanes) noexcept {
  VF loss[kParts], square[kParts], total[kParts], peak[kParts];
  for (int part = 0; part < kParts; ++part) {
    loss[part] = load(lanes.loss + part * TX_LANES);
    square[part] = load(lanes.square + part * TX_LANES);
    total[part] = load(lanes.sum + part * TX_LANES);
    peak[part] = load(lanes.peak + part * TX_LANES);
  }
  for (int64_t k0 = 0; k0 < a.padded; k0 += 16) {
    for (int part = 0; part < kParts; ++part) {
      const int64_t k = k0 + part * TX_LANES;
      VF z;
      if (a.z != nullptr) {
        z = load(a.z + k) + a.intercept;
      } else {
        VI low = load_int(a.dots + k), high = {};
        if (a.planes == 2) high = load_int(a.dots + a.plane_stride + k);
        for (int s = 1; s < a.slices; ++s) {
          low += load_int(a.dots + s * a.slice_stride + k);
          if (a.planes == 2) high += load_int(a.dots + s * a.slice_stride + a.plane_stride + k);
        }
        z = prediction_rule(low, high, a.planes == 2, a.sigma, a.beta, a.intercept);
      }
      const bool logistic = a.loss == Loss::log_loss, moved = logistic && a.variance_reduced;
      const bool plain = !logistic && a.variance_reduced;
      const VF y = plain || a.y == nullptr ? VF{} : load(a.y + k);
      Residual r = residual_rule(logistic, moved, z, y, moved ? load(a.z0 + k) : VF{});
      if (a.weight != nullptr) {
        const VF w = load(a.weight + k);
        r.e *= w;
        r.loss *= w;
      }
      if (k + TX_LANES > a.rows) {
        VI lane;
        for (int i = 0; i < TX_LANES; ++i) lane[i] = i;
        const VI real = lane < static_cast<int32_t>(a.rows - k);
        r.e = real ? r.e : VF{};
        r.loss = real ? r.loss : VF{};
      }
      store(a.e + k, r.e);
      loss[part] += r.loss;
      square[part] += r.e * r.e;
      total[part] += r.e;
      peak[part] = larger(absolute(r.e), peak[part]);
    }
  }
  for (int part = 0; part < kParts; ++part) {
    store(lanes.loss + part * TX_LANES, loss[part]);
    store(lanes.square + part * TX_LANES, square[part]);
    store(lanes.sum + part * TX_LANES, total[part]);
    store(lanes.peak + part * TX_LANES, peak[part]);
  }
}

/// g of the TX_LANES columns at j: from integer sums, or as given.
TX_INL VF gradient_at(const UpdateArgs& a, int64_t j) {
  if (a.sums == nullptr) return load(a.gradient + j);
  const VI high = a.planes == 2 ? load_int(a.sums + a.cols + j) : VI{};
  return gradient_rule(load_int(a.sums + j), high, a.planes == 2, load(a.lo + j), load(a.step + j),
                       a.sum, a.scale);
}

float step_gradient(const UpdateArgs& a, int64_t begin, int64_t end, float* out) noexcept {
  VF peak = {};
  for (int64_t j = begin; j < end; j += TX_LANES) {
    const VF g = gradient_at(a, j);
    store(out + j, g);
    peak = larger(absolute(g), peak);
  }
  float m = 0.0f;
  for (int l = 0; l < TX_LANES; ++l) m = peak[l] > m ? peak[l] : m;
  return m;
}

TX_INL float update_columns(const UpdateArgs& args, UpdateParts parts, int64_t begin, int64_t end) {
  const UpdateArgs a = args;  // a copy: no store through its pointers can change it
  VF peak = {};
  const float shrinkage = a.gamma * a.l1;
  for (int64_t j0 = begin; j0 < end; j0 += 64) {
    for (int part = 0; part < kParts; ++part) {
      VF beta = {};
      for (int64_t j = j0 + part * TX_LANES; j < j0 + 64; j += 16) {
        VF x = load(a.x + j);
        const VF centre = parts.x0 ? load(a.x0 + j) : VF{};
        if (parts.move) {
          x = update_rule(parts, x, gradient_at(a, j), parts.constant ? load(a.constant + j) : VF{},
                          parts.shrink ? load(a.shrink + j) : VF{}, centre, a.gamma, a.l2,
                          shrinkage);
          store(a.x + j, x);
          if (parts.average) add_to(a.average + j, x);
        }
        const VF v = a.variance_reduced ? x - centre : x, w = load(a.step + j) * v;
        store(a.w + j, w);
        peak = larger(absolute(w), peak);
        beta += load(a.lo + j) * v;
      }
      store(a.beta_lanes + j0 / 4 + part * TX_LANES, beta);
    }
  }
  float m = 0.0f;
  for (int l = 0; l < TX_LANES; ++l) m = peak[l] > m ? peak[l] : m;
  return m;
}

float step_update(const UpdateArgs& a, bool move, int64_t begin, int64_t end) noexcept {
  const UpdateParts parts{move,         a.x0 != nullptr, a.constant != nullptr, a.shrink != nullptr,
                          a.l1 != 0.0f, a.l2 != 0.0f,    a.average != nullptr};
  if (move && parts.average && !parts.x0 && !parts.constant && !parts.shrink && !parts.l1 &&
      !parts.l2) {
    return update_columns(a, {true, false, false, false, false, false, true}, begin, end);
  }
  return update_columns(a, parts, begin, end);
}

}  // namespace
}  // namespace torchext::cpu
