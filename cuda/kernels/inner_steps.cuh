// What the inner epochs of HALP and SVRG share on CUDA: rows of later steps, and changes of slopes.
//
// A step depends on the one before, so one block of threads makes all steps: what leaves its
// multiprocessor costs more than the arithmetic. What does not depend on the displacement (random
// words, row numbers, what is cached for the rows) is prepared for a block of steps at a time, and
// rows are on their way to shared memory some steps before their turn.
#pragma once

#include "async_copy.h"
#include "kernels/linear/inner_loop.h"
#include "kernels/linear/slope_change.h"
#include "warp_reduce.h"

namespace torchext::cuda {

/// Where the arrays of an epoch are, in bytes from 16-byte aligned memory: shared memory if all
/// fit.
constexpr int64_t kMostInnerShared = 96 * 1024;  // of a block on every GPU since sm_80

constexpr int kRing = 4;  // rows in shared memory: of this step, of the next, and two on their way

/// Hands out 16-byte aligned parts of one piece of memory.
struct Parts {
  int64_t end = 0;

  int64_t take(int64_t bytes) {
    const int64_t at = end;
    end += (bytes + 15) / 16 * 16;
    return at;
  }
};

/// Steps that are prepared together.
inline int steps_together(int outputs) noexcept {
  int steps = 64;
  while (steps > 1 && steps * outputs > 128) steps /= 2;
  return steps;
}

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

/// Row numbers of steps first .. first + count + kRing - 1, and what is cached for the first
/// `count`.
TX_DEVICE void prepare_rows(const Thread& t, const cpu::InnerLoop& loop, Key key, int64_t first,
                            int count, uint32_t* rows, float* cache, float* weight) {
  const auto size = static_cast<int>(cpu::slope_cache_size(loop.loss, loop.outputs));
  for (int i = t.thread(); i < count + kRing; i += t.threads())
    rows[i] = static_cast<uint32_t>(row_of(loop, key, first + i));
  t.sync();
  for (int i = t.thread(); i < count * size; i += t.threads())
    cache[i] = loop.cache[static_cast<int64_t>(rows[i / size]) * size + i % size];
  for (int i = t.thread(); i < count; i += t.threads())
    weight[i] = loop.weight != nullptr ? loop.weight[rows[i]] : 1.0f;
}

/// The ring of rows. With kShared false the rows stay where they are.
template <class X, bool kShared>
struct RowRing {
  const X* x;
  X* ring;
  int64_t pitch;

  TX_DEVICE const X* at(int64_t step, uint32_t row) const {
    return kShared ? ring + step % kRing * pitch : x + static_cast<int64_t>(row) * pitch;
  }
  /// All threads of a block start the copy of a row.
  TX_DEVICE void start(const Thread& t, int64_t step, uint32_t row) const {
    constexpr int kEach = 16 / sizeof(X);
    const X* const from = x + static_cast<int64_t>(row) * pitch;
    if constexpr (kShared) {
      X* const to = ring + step % kRing * pitch;
      for (int64_t j = t.thread() * kEach; j < pitch; j += t.threads() * kEach)
        copy_async16(to + j, from + j);
      copies_commit();
    } else {
      constexpr int kLine = 128 / sizeof(X);
      for (int64_t j = t.thread() * kLine; j < pitch; j += t.threads() * kLine)
        fetch_line(from + j);
    }
  }
  /// Before the barrier that ends a step: the row after the next has arrived.
  TX_DEVICE void wait() const {
    if constexpr (kShared) copies_wait<1>();
  }
  /// Before the block ends: nothing is under way any more.
  TX_DEVICE void drain() const {
    if constexpr (kShared) copies_wait<0>();
  }
};

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
