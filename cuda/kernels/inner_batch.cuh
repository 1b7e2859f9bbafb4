// What the inner epochs of HALP and SVRG share on CUDA with mini-batches.
//
// The products and sums of a batch are worth many blocks, so a step is two launches. The first has
// a block for each row: its products with the displacements, and from these the coefficients of its
// update. The second has blocks of 64 columns of an output and a slice of the rows, whose sums it
// forms; the block that completes the columns moves them. The intercept is a further block of
// columns.
#pragma once

#include "inner_batch.h"
#include "inner_changes.cuh"
#include "last_block.h"
#include "linear/workspace.h"

// For loops over loads, so that as many are under way.
#if defined(__CUDACC__)
#define TX_PRAGMA(text) _Pragma(#text)
#define TX_UNROLL_BY(times) TX_PRAGMA(unroll times)
#else
#define TX_UNROLL_BY(times)
#endif

namespace torchext::cuda {

constexpr int kColumns = 64;  // of a block

/// Parameters and working memory of a step.
template <class EpochOf>
struct BatchLaunch {
  using Epoch = EpochOf;
  Epoch e;
  const uint64_t* key;
  int64_t step;
  uint32_t* rows;  // [batch]
  float* changes;  // [batch, outputs] of the slopes, with several outputs
  uint32_t* done;  // [outputs, column_groups()] slices
};

/// Blocks of columns of an output.
TX_HD int64_t column_groups(const cpu::InnerLoop& loop) {
  return loop.pitch / kColumns + (loop.intercept ? 1 : 0);
}

/// Memory of every epoch.
template <class Launched>
void take_shared(Launched* p, Parts* parts, int64_t rows) {
  const cpu::InnerLoop& loop = p->e.loop;
  parts->take(p->done, loop.outputs * column_groups(loop));
  parts->take(p->rows, rows);
  parts->take(p->changes, loop.outputs > 1 ? loop.batch * loop.outputs : 0);
}

/// The columns of a block: of the intercept after all others.
struct ColumnBlock {
  int64_t output, first;
  bool intercept;
};
TX_DEVICE ColumnBlock column_block(const cpu::InnerLoop& loop, const Thread& t) {
  const int64_t groups = column_groups(loop), first = t.block() % groups * kColumns;
  return {t.block() / groups, first, first == loop.pitch};
}

/// The first launch. Form has the score of a row and keeps what its change means for the update.
template <class Form, int kWarps>
struct BatchRows {
  using Params = typename Form::Params;
  static constexpr int kThreads = 32 * kWarps, kMinBlocks = 24 / kWarps;  // 85 registers

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::InnerLoop& loop = p.e.loop;
    const Key key{p.key[0], p.key[1]};
    const int64_t i = t.block(), row = row_of(loop, key, p.step * loop.batch + i);
    if (t.thread() == 0) p.rows[i] = static_cast<uint32_t>(row);
    const float* const cache = loop.cache + row * cpu::slope_cache_size(loop.loss, loop.outputs);
    const float weight = loop.weight != nullptr ? loop.weight[row] : 1.0f;
    if constexpr (kWarps == 1) {
      const float change = single_change(loop.loss, cache, Form::score(p, t, row, 0)) * weight;
      if (t.lane() == 0) Form::keep(p, t, key, i, 0, change);
      return;
    }
    float* const changes = p.changes + i * loop.outputs;
    for (int o = t.warp(); o < loop.outputs; o += kWarps) {
      const float score = Form::score(p, t, row, o);
      if (t.lane() == 0) changes[o] = score;
    }
    t.sync();
    if (t.warp() > 0) return;
    warp_changes(t, loop, cache, weight, changes, changes);
    for (int o = t.lane(); o < loop.outputs; o += 32) Form::keep(p, t, key, i, o, changes[o]);
  }
};

/// All steps of an epoch; Columns is the second launch.
template <class Form, class Columns>
cudaError_t launch_steps(typename Form::Params p, int64_t slices, cudaStream_t stream) noexcept {
  const cpu::InnerLoop& loop = p.e.loop;
  const Launch columns{loop.outputs * column_groups(loop), slices, Columns::kShared};
  for (p.step = 0; p.step < loop.steps; ++p.step) {
    const cudaError_t rows = loop.outputs == 1
                                 ? launch<BatchRows<Form, 1>>(p, {loop.batch}, stream)
                                 : launch<BatchRows<Form, 8>>(p, {loop.batch}, stream);
    if (rows != cudaSuccess) return rows;
    const cudaError_t moved = launch<Columns>(p, columns, stream);
    if (moved != cudaSuccess) return moved;
  }
  return cudaSuccess;
}

/// Zeroes displacements.
template <class Epoch>
cudaError_t zero_displacement(const Epoch& e, size_t width, cudaStream_t stream) noexcept {
  const auto outputs = static_cast<size_t>(e.loop.outputs);
  const cudaError_t status = zero(e.z, outputs * static_cast<size_t>(e.loop.pitch) * width, stream);
  if (status != cudaSuccess || !e.loop.intercept) return status;
  return zero(e.z_intercept, outputs * sizeof *e.z_intercept, stream);
}

}  // namespace torchext::cuda
