// What the inner epochs of HALP and SVRG share on CUDA with one row a step: rows of later steps.
//
// A step depends on the one before, so one block of threads makes all steps: what leaves its
// multiprocessor costs more than the arithmetic. What does not depend on the displacement (random
// words, row numbers, what is cached for the rows) is prepared for a block of steps at a time, and
// rows are on their way to shared memory some steps before their turn.
#pragma once

#include "async_copy.h"
#include "inner_changes.cuh"

namespace torchext::cuda {

/// Where the arrays of an epoch are, in bytes from 16-byte aligned memory: shared memory if all
/// fit.
constexpr int64_t kMostInnerShared = 96 * 1024;  // of a block on every GPU since sm_80

constexpr int kRing = 4;  // rows in shared memory: of this step, of the next, and two on their way

/// Hands out 16-byte aligned parts of one piece of memory.
struct BlockParts {
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

}  // namespace torchext::cuda
