// Products with float32 rows; included once by each per-ISA source.
#pragma once

#include <cmath>

#include "sgd_kernels.h"
#include "vec_math.h"

namespace torchext::cpu {
namespace {

// A macro: g++ 12 drops calls of a function that only prefetches.
#define TX_PREFETCH_AT(ahead, h, offset)                                                       \
  do {                                                                                         \
    const uint8_t* tx_p = (ahead).stream[(h) & ((1 << (ahead).log2_streams) - 1)] + (offset) + \
                          ((h) >> (ahead).log2_streams) * 128;                                 \
    __builtin_prefetch(tx_p, 0, 2);                                                            \
    __builtin_prefetch(tx_p + 64, 0, 2);                                                       \
  } while (false)

// Rows of one block keep their 16 lanes in registers: 8 rows with AVX-512, fewer where registers
// are narrower.
template <int R>
TX_INL void dot_rows(const float* rows, int64_t pitch, const float* w, int64_t n, float* z,
                     int64_t& h, int64_t pairs, const Prefetch& ahead) {
  VF acc[R][kParts] = {};
  int64_t due = 0;
  for (int64_t j = 0; j < n; j += 16) {
    for (due += pairs; due >= 8; due -= 8) {
      TX_PREFETCH_AT(ahead, h, 0);
      ++h;
    }
    for (int part = 0; part < kParts; ++part) {
      const VF wj = load(w + j + part * TX_LANES);
      for (int r = 0; r < R; ++r) {
        acc[r][part] = fused(load(rows + r * pitch + j + part * TX_LANES), wj, acc[r][part]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    float lanes[16];
    for (int part = 0; part < kParts; ++part) store(lanes + part * TX_LANES, acc[r][part]);
    z[r] = tree16(lanes);
  }
}

void dense_forward_impl(const float* rows, int64_t pitch, int count, const float* w, int64_t n,
                        float* z, const Prefetch& ahead) noexcept {
  constexpr int R = TX_LANES == 16 ? 8 : TX_LANES == 8 ? 4 : 2;
  int64_t h = 0;
  int r = 0;
  // One pass prefetches half of what it reads: R rows of 16 floats are R lines, so R/4 pairs of
  // lines per step.
  for (; r + R <= count; r += R) dot_rows<R>(rows + r * pitch, pitch, w, n, z + r, h, 2 * R, ahead);
  for (; r < count; ++r) dot_rows<1>(rows + r * pitch, pitch, w, n, z + r, h, 2, ahead);
}

template <int R>
TX_INL void add_rows(const float* rows, int64_t pitch, const float* e, int64_t n, float* g,
                     int64_t& h, int64_t pairs, const Prefetch& ahead) {
  VF factor[R];
  for (int r = 0; r < R; ++r) factor[r] = splat(e[r]);
  int64_t due = 0;
  for (int64_t j = 0; j < n; j += 16) {
    for (due += pairs; due >= 8; due -= 8) {
      TX_PREFETCH_AT(ahead, h, ahead.half);
      ++h;
    }
    for (int part = 0; part < kParts; ++part) {
      VF sum = load(g + j + part * TX_LANES);
      for (int r = 0; r < R; ++r)
        sum = fused(factor[r], load(rows + r * pitch + j + part * TX_LANES), sum);
      store(g + j + part * TX_LANES, sum);
    }
  }
}

void dense_backward_impl(const float* rows, int64_t pitch, int count, const float* e, int64_t n,
                         float* g, const Prefetch& ahead) noexcept {
  int64_t h = 0;
  int r = 0;
  for (; r + 8 <= count; r += 8) add_rows<8>(rows + r * pitch, pitch, e + r, n, g, h, 16, ahead);
  for (; r < count; ++r) add_rows<1>(rows + r * pitch, pitch, e + r, n, g, h, 2, ahead);
}

}  // namespace
}  // namespace torchext::cpu
