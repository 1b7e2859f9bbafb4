// An epoch of SVRG over mini-batches on CUDA: the bits of the CPU, in two launches a step
// (inner_batch.cuh). A slice of the rows is what the CPU adds up in a chain.
#include <cmath>

#include "inner_batch.cuh"
#include "svrg_scale.h"

namespace torchext::cuda {
namespace {

struct SvrgBatch : BatchLaunch<cpu::SvrgEpoch> {
  SvrgScale scale;
  float* minus;    // [outputs, batch]: factors of the rows
  float* shares;   // [outputs, batch]: what they take from the intercept
  float* partial;  // [slices, outputs, pitch]: sums, with more than one slice
};

int64_t slices_of(const cpu::InnerLoop& loop) {
  return (loop.batch + cpu::kBatchPart - 1) / cpu::kBatchPart;
}

struct SvrgRow {
  using Params = SvrgBatch;

  /// How far the score of a row has moved. A thread has two of the CPU's 64 lanes.
  TX_DEVICE static float score(const Params& p, const Thread& t, int64_t row, int o) {
    const int64_t pitch = p.e.loop.pitch;
    const float* const x = static_cast<const float*>(p.e.loop.x) + row * pitch;
    const float* const z = p.e.z + o * pitch;
    float low = 0.0f, high = 0.0f;
    TX_UNROLL_BY(8)
    for (int64_t j = t.lane(); j < pitch; j += 64) {
      low = std::fmaf(x[j], z[j], low);
      high = std::fmaf(x[j + 32], z[j + 32], high);
    }
    const float end = p.e.loop.intercept ? p.e.z_intercept[o] : 0.0f;
    return svrg_score(p.e, p.scale, warp_sum(low + high, t), end);
  }

  TX_DEVICE static void keep(const Params& p, const Thread& /*t*/, Key /*key*/, int64_t i, int o,
                             float change) {
    const int64_t at = o * p.e.loop.batch + i;
    p.minus[at] = -(p.scale.factor * change);
    if (p.e.loop.intercept) p.shares[at] = p.scale.alpha * change * p.e.unit;
  }
};

/// A thread has a column. The last block of a group of columns adds up the slices in order.
struct SvrgColumns {
  using Params = SvrgBatch;
  static constexpr int kThreads = kColumns;
  static constexpr int kShares = 1024;  // at a time
  static constexpr size_t kShared = sizeof(float) * kShares;
  static_assert(kThreads == cpu::kBatchPart && 2 * kThreads < kShares);

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ColumnBlock at = column_block(p.e.loop, t);
    if (at.intercept) {
      if (t.row() == 0) move_intercept(p, t, at.output);
      return;
    }
    const int64_t pitch = p.e.loop.pitch, j = at.first + t.thread(), place = at.output * pitch + j;
    float sum = slice_sum(p, t, at.output, j);
    if (t.rows() > 1) {
      p.partial[t.row() * p.e.loop.outputs * pitch + place] = sum;
      if (!last_to_arrive(t, p.done + t.block(), static_cast<uint32_t>(t.rows()),
                          t.shared<int>() + 2 * kThreads))
        return;
    }
    float* const z = p.e.z + place;
    const float drift = j < p.e.cols ? svrg_drift(p.e, at.output, j) : 0.0f;
    float moved = std::fmaf(p.scale.keep, *z, drift);
    if (t.rows() == 1) {
      *z = moved + sum;
      return;
    }
    TX_UNROLL_BY(8)
    for (int64_t k = 0; k < t.rows(); ++k)
      moved += load_past(p.partial + k * p.e.loop.outputs * pitch + place);
    *z = moved;
  }

 private:
  /// p of this slice for one column.
  TX_DEVICE static float slice_sum(const Params& p, const Thread& t, int64_t o, int64_t j) {
    const int64_t first = t.row() * cpu::kBatchPart, rest = p.e.loop.batch - first;
    const int count = static_cast<int>(rest < cpu::kBatchPart ? rest : cpu::kBatchPart);
    auto* const rows = t.shared<uint32_t>();
    auto* const minus = t.shared<float>() + kThreads;
    if (t.thread() < count) {
      rows[t.thread()] = p.rows[first + t.thread()];
      minus[t.thread()] = p.minus[o * p.e.loop.batch + first + t.thread()];
    }
    t.sync();
    const float* const x = static_cast<const float*>(p.e.loop.x) + j;
    float sum = 0.0f;
    TX_UNROLL_BY(16)
    for (int i = 0; i < count; ++i)
      sum = std::fmaf(minus[i], x[int64_t{rows[i]} * p.e.loop.pitch], sum);
    return sum;
  }

  /// A chain over all rows.
  TX_DEVICE static void move_intercept(const Params& p, const Thread& t, int64_t o) {
    const int64_t batch = p.e.loop.batch;
    auto* const shares = t.shared<float>();
    float moved = 0.0f;
    if (t.thread() == 0) moved = p.e.z_intercept[o] + svrg_drift(p.e, o, p.e.cols);
    for (int64_t first = 0; first < batch; first += kShares) {
      const int count = static_cast<int>(batch - first < kShares ? batch - first : kShares);
      TX_UNROLL_BY(16)
      for (int i = t.thread(); i < count; i += kThreads)
        shares[i] = p.shares[o * batch + first + i];
      t.sync();
      if (t.thread() == 0) {
        TX_UNROLL_BY(16)
        for (int i = 0; i < count; ++i) moved -= shares[i];
      }
      t.sync();
    }
    if (t.thread() == 0) p.e.z_intercept[o] = moved;
  }
};

/// Bytes of memory at `base`, which may be null.
size_t take_memory(SvrgBatch* p, void* base) {
  const cpu::InnerLoop& loop = p->e.loop;
  const int64_t rows = loop.outputs * loop.batch, slices = slices_of(loop);
  Parts parts(base);
  take_shared(p, &parts, loop.batch);
  parts.take(p->minus, rows);
  parts.take(p->shares, loop.intercept ? rows : 0);
  parts.take(p->partial, slices > 1 ? slices * loop.outputs * loop.pitch : 0);
  return parts.used();
}

}  // namespace

int64_t svrg_batch_scratch(const cpu::SvrgEpoch& e) noexcept {
  SvrgBatch p{};
  p.e = e;
  return static_cast<int64_t>(take_memory(&p, nullptr));
}

cudaError_t launch_svrg_batch(const SvrgParams& params, cudaStream_t stream) noexcept {
  SvrgBatch p{};
  const cudaError_t cached = fill_cache(params, &p, stream);
  if (cached != cudaSuccess) return cached;
  p.scale = svrg_scale(p.e);
  take_memory(&p, params.scratch);
  const auto groups = static_cast<size_t>(p.e.loop.outputs * column_groups(p.e.loop));
  cudaError_t zeroed = zero(p.done, groups * sizeof *p.done, stream);
  if (zeroed == cudaSuccess) zeroed = zero_displacement(p.e, sizeof(float), stream);
  if (zeroed != cudaSuccess) return zeroed;
  return launch_steps<SvrgRow, SvrgColumns>(p, slices_of(p.e.loop), stream);
}

}  // namespace torchext::cuda
