// What the inner epochs of HALP and SVRG share on CUDA: draws, and changes of slopes.
#pragma once

#include "inner_loop.h"
#include "kernels/linear/slope_change.h"
#include "warp_reduce.h"

namespace torchext::cuda {

/// draw1() by selections: an index into the block's words would put them into local memory.
TX_DEVICE uint32_t draw_word(Key key, uint64_t element, uint32_t stream, uint32_t draw) {
  const Words four = draw4(key, element / 4, stream, draw);
  const uint32_t low = element % 2 == 0 ? four.w[0] : four.w[1];
  const uint32_t high = element % 2 == 0 ? four.w[2] : four.w[3];
  return element % 4 < 2 ? low : high;
}

TX_DEVICE int64_t row_of(const cpu::InnerLoop& loop, Key key, int64_t step) {
  const uint32_t word = draw_word(key, static_cast<uint64_t>(step), loop.stream, cpu::kRow);
  return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(loop.rows)) >>
                              32);
}

/// The change of a single output, without arrays in local memory; slope_change() for outputs = 1.
TX_DEVICE float single_change(cpu::RowLoss loss, const float* cache, float s) {
  if (loss == cpu::RowLoss::squared) return s;
  if (loss == cpu::RowLoss::logistic) return cpu::logistic_change(cache, s);
  const bool small = s >= -1.0f && s <= 1.0f;
  const float part = cpu::softmax_part(small, s, s);
  return cpu::softmax_whole(small, cache[0], part, 0.0f + cache[0] * part);
}

/// change[o] of all outputs by one warp; lane l writes outputs l, l + 32, .. and has written their
/// moved scores. The sum of softmax has the order of the outputs.
TX_DEVICE void warp_changes(const Thread& t, const cpu::InnerLoop& loop, const float* cache,
                            float weight, const float* moved, float* change) {
  const int m = loop.outputs;
  if (loop.loss != cpu::RowLoss::softmax) {
    for (int o = t.lane(); o < m; o += 32) change[o] = moved[o] * weight;
    return;
  }
  t.sync_warp();
  float top = moved[0], largest = 0.0f;
  for (int o = t.lane(); o < m; o += 32) {
    const float s = moved[o], size = s < 0.0f ? -s : s;
    top = s > top ? s : top;
    largest = size > largest ? size : largest;
  }
  top = warp_largest(top, t);
  largest = warp_largest(largest, t);
  const bool small = largest <= 1.0f;
  for (int o = t.lane(); o < m; o += 32) change[o] = cpu::softmax_part(small, moved[o], top);
  t.sync_warp();
  float total = 0.0f;
  for (int o = 0; o < m; ++o) total += cache[o] * change[o];
  t.sync_warp();
  for (int o = t.lane(); o < m; o += 32)
    change[o] = cpu::softmax_whole(small, cache[o], change[o], total) * weight;
}

/// What is cached for every row, from the scores phi [outputs, rows].
struct SlopeCache {
  struct Params {
    cpu::InnerLoop loop;
    const float* phi;
    float* cache;
  };
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::InnerLoop& loop = p.loop;
    const int64_t size = cpu::slope_cache_size(loop.loss, loop.outputs);
    for (int64_t k = t.index(); k < loop.rows; k += t.count())
      cpu::slope_cache(loop.loss, loop.outputs, p.phi + k, loop.rows, p.cache + k * size);
  }
};

inline cudaError_t launch_slope_cache(const cpu::InnerLoop& loop, const float* phi, float* cache,
                                      cudaStream_t stream) noexcept {
  if (loop.loss == cpu::RowLoss::squared) return cudaSuccess;
  return launch<SlopeCache>({loop, phi, cache}, {blocks_for(loop.rows, SlopeCache::kThreads)},
                            stream);
}

/// Starts a launch from the arguments of an epoch: its loop and key, and the cache, which is
/// filled.
template <class Params, class Launched>
cudaError_t fill_cache(const Params& params, Launched* p, cudaStream_t stream) noexcept {
  p->e = params.epoch;
  p->e.loop.cache = params.cache;
  p->key = params.key;
  return launch_slope_cache(params.epoch.loop, params.phi, params.cache, stream);
}

}  // namespace torchext::cuda
