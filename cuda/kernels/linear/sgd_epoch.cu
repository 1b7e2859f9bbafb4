// The launches of an epoch and their working memory.
#include "../code_layout.h"
#include "epoch_parts.h"
#include "sgd_epoch.h"
#include "tile_launch.cuh"
#include "workspace.h"

namespace torchext::cuda {
namespace {

bool integer_path(const EpochData& data, const EpochStep& p) {
  return data.codes != nullptr && p.model_bits <= 8 && p.residual_bits <= 8 &&
         p.batch <= cpu::kMaxIntegerBatch;
}

bool gathered(const EpochStep& p) { return p.batch % kTileRows != 0; }

/// The batch's codes where batches are no whole tiles, or its decoded values.
struct BatchBuffers {
  uint8_t* tiles = nullptr;
  float* values = nullptr;
};

struct Workspace {
  EpochStep step;
  BatchBuffers batch;
  int32_t *dots = nullptr, *sums = nullptr;
  size_t zeroed, used;

  Workspace(const EpochData& data, const EpochStep& problem, void* base) : step(problem) {
    EpochStep& p = step;
    const int64_t m = p.outputs, n = p.cols, sets = p.planes * p.books;
    p.np = (n + 63) / 64 * 64;
    const int64_t most = p.batch < p.rows ? p.batch : p.rows;
    p.batch_rows = (most + 63) / 64 * 64;
    p.segment_rows = ((most + kSegments - 1) / kSegments + 15) / 16 * 16;
    p.values = !integer_path(data, p);
    p.decoded = p.values && data.codes != nullptr;
    p.pitch = (n + 15) / 16 * 16;
    const int64_t pieces = (p.batch_rows + kPieceRows - 1) / kPieceRows, blocks = p.np / 64;
    Parts parts(base);
    // Zero before the first step.
    parts.take(p.totals, kSegments * m * 32);
    parts.take(p.counted, m);
    parts.take(p.w_peak, m);
    parts.take(p.e_peak, m);
    parts.take(p.g_peak, m);
    parts.take(p.eq_total, m);
    parts.take(p.all_done, m);
    if (p.average != nullptr) parts.take(p.iterates, m * p.np);
    if (!p.values) {
      parts.take(dots, m * sets * p.batch_rows);
      parts.take(sums, m * p.planes * p.np);
      parts.take(p.eq_sum, blocks * m);
      parts.take(p.piece_done, m * pieces);
      parts.take(p.columns_done, m * blocks);
    }
    if (p.decoded) parts.take(batch.values, p.books * p.batch_rows * p.pitch);
    zeroed = parts.used();
    parts.take(p.w, m * p.np);
    parts.take(p.beta_lanes, m * p.np / 4);
    parts.take(p.beta, m);
    parts.take(p.model_scale, m);
    parts.take(p.e, m * p.books * p.batch_rows);
    if (p.gradient_bits != 0 || p.values) parts.take(p.gradient, m * p.np);
    if (p.values) {
      parts.take(p.loss, m * p.books * p.batch_rows);
      if (p.model_bits <= 8) parts.take(p.rounded, m * p.np);
      parts.take(p.partial, kSegments * m * p.np);
      parts.take(p.segment_sum, kSegments * m * 16);
    } else {
      parts.take(p.lanes, m * p.books * pieces * 32);
      if (gathered(p)) {
        const CodeLayout tiles{Layout::tile4, data.bits, p.batch_rows, n};
        parts.take(batch.tiles, layout_bytes(tiles));
      }
    }
    if (p.decoded) p.dense = batch.values;
    used = parts.used();
  }
};

RowChoice batch_of(const EpochStep& p) {
  return {nullptr, p.order + p.step, p.batch, p.batch < p.rows ? p.batch : p.rows, p.rows};
}

cudaError_t decode_batch(const EpochData& data, const Workspace& w, cudaStream_t stream) {
  const EpochStep& p = w.step;
  for (int book = 0; book < p.books; ++book) {
    const CodeLayout layout{Layout::tile4, data.bits, p.rows, p.cols};
    const DecodeParams decode{batch_of(p),
                              layout,
                              data.codes,
                              nullptr,
                              0,
                              p.grid,
                              data.table,
                              p.planes,
                              p.books,
                              book,
                              w.batch.values + book * p.batch_rows * p.pitch,
                              p.pitch};
    const cudaError_t status = launch_decode_rows(decode, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

cudaError_t integer_step(const EpochData& data, const Workspace& w, cudaStream_t stream) {
  const EpochStep& p = w.step;
  TileMatrix a{data.codes, gathered(p), data.table, p.batch_rows / 64,
               p.cols,     data.bits,   p.planes,   p.books};
  if (a.gathered) {
    a.codes = w.batch.tiles;
    const MoveRowsParams move{batch_of(p), data.codes, w.batch.tiles, p.cols, data.bits};
    const cudaError_t status = launch_move_rows(move, stream);
    if (status != cudaSuccess) return status;
  }
  const cudaError_t status =
      launch_dots({a, p.outputs, nullptr, 0, w.dots, p.batch_rows, 1, p}, stream);
  if (status != cudaSuccess) return status;
  const int64_t chunks = p.outputs == 1 ? 1 : (p.outputs + 3) / 4;
  const int64_t splits = parts_of(a.tiles, p.np / 64 * chunks * p.planes * p.books,
                                  (a.tiles + kSplitTiles - 1) / kSplitTiles, (a.tiles + 3) / 4);
  return launch_sums(
      {a, p.outputs, nullptr, 0, w.sums, a.tiles, 0, (a.tiles + splits - 1) / splits, p}, stream);
}

}  // namespace

size_t epoch_workspace(const EpochData& data, const EpochStep& step) noexcept {
  return Workspace(data, step, nullptr).used;
}

cudaError_t launch_epoch(const EpochData& data, EpochStep step, void* workspace,
                         cudaStream_t stream) noexcept {
  Workspace w(data, step, workspace);
  EpochStep& p = w.step;
  cudaError_t status = zero(workspace, w.zeroed, stream);
  const auto then = [&](cudaError_t next) { status = status != cudaSuccess ? status : next; };
  p.step = -1;
  if (p.steps > 0) then(launch_begin(p, stream));
  for (p.step = 0; p.step < p.steps && status == cudaSuccess; ++p.step) {
    if (p.values) {
      if (p.decoded) then(decode_batch(data, w, stream));
      then(launch_float_gradient(p, stream));
    } else {
      then(integer_step(data, w, stream));
    }
    if (p.values || p.gradient_bits != 0) then(launch_follow(p, stream));
  }
  p.step = -1;
  then(launch_finish(p, stream));
  return status;
}

}  // namespace torchext::cuda
