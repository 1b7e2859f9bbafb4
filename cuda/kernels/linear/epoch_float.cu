// The float32 path: dense data, models or residuals that are not rounded. Sums in the order of the
// CPU, so that the bits agree: 16 lanes a dot, and a gradient in up to four segments of rows.
#include <cmath>

#include "epoch_parts.h"
#include "epoch_step.cuh"

namespace torchext::cuda {
namespace {

constexpr int kChunkRows = 16;

/// The model of output o that predictions use.
TX_DEVICE const float* model_of(const EpochStep& p, int64_t o) {
  return (p.model_bits <= 8 ? p.rounded : p.w) + o * p.np;
}

/// Row r of the batch, as book `book` decodes it.
TX_DEVICE const float* row_of(const EpochStep& p, BatchRows rows, int64_t r, int book) {
  return p.dense + (p.decoded ? book * p.batch_rows + r : rows.first + r) * p.pitch;
}

/// The model rounded to model_bits, eight columns a thread.
struct RoundModel {
  using Params = EpochStep;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Key key = step_key(p, Purpose::kModel);
    const int64_t eights = p.np / 8;
    for (int64_t i = t.index(); i < p.outputs * eights; i += t.count()) {
      const int64_t o = i / eights, j = i % eights * 8;
      const Spacing s = spacing_of(p.model_scale[o]);
      const auto top = static_cast<int32_t>(top_of(p.model_bits));
      const Words draws = draw4(key, static_cast<uint64_t>(j) / 8, static_cast<uint32_t>(o), 0);
      float w[8];
      load<8>(p.w + o * p.np + j, w);
      TX_UNROLL
      for (int c = 0; c < 8; ++c)
        w[c] = static_cast<float>(round_one(w[c], s.inverse, uniform16(draws, c), top)) * s.used;
      store<8>(w, p.rounded + o * p.np + j);
    }
  }
};

/// Predictions and residuals: half a warp a row, a block a chunk of rows.
struct Predict {
  using Params = EpochStep;
  static constexpr int kThreads = 16 * kChunkRows;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const BatchRows rows = rows_of(p);
    const int64_t r = t.block() * kChunkRows + t.thread() / 16, o = t.row();
    const int l = t.thread() % 16;
    const float* w = model_of(p, o);
    for (int book = 0; book < p.books; ++book) {
      float z = 0.0f;
      if (r < rows.count) {
        const float* row = row_of(p, rows, r, book);
        for (int64_t j = l; j < p.pitch; j += 16) z = std::fmaf(row[j], w[j], z);
      }
      TX_UNROLL
      for (int half = 8; half > 0; half /= 2) z += t.shuffle_xor(z, half);
      const cpu::Residual found = residual_at(p, rows, r, o, z + offset_of(p, o));
      if (l == 0) {
        const int64_t at = (o * p.books + book) * p.batch_rows + r;
        p.e[at] = found.e;
        p.loss[at] = found.loss;
      }
      raise_peak(t, p.e_peak + o, magnitude_bits(found.e));
    }
  }
};

/// Losses, squares and residuals of a segment, a warp each: lanes of row mod 16, moved to float64
/// every 256 rows.
struct Count {
  using Params = EpochStep;
  static constexpr int kThreads = 32;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const BatchRows rows = rows_of(p);
    const int64_t segment = t.block(), o = t.row(), begin = segment * p.segment_rows,
                  rest = begin + p.segment_rows, end = rest < rows.count ? rest : rows.count;
    if (t.lane() >= 16) return;
    double* totals = p.totals + (segment * p.outputs + o) * 32 + t.lane();
    float loss = 0.0f, square = 0.0f, sum = 0.0f;
    for (int64_t r = begin; r < end; r += kChunkRows) {
      for (int book = 0; book < p.books; ++book) {
        const int64_t at = (o * p.books + book) * p.batch_rows + r + t.lane();
        const float e = p.e[at];
        loss += p.loss[at];
        square += e * e;
        sum += e;
      }
      if (r / kChunkRows % 16 == 15 || r + kChunkRows >= end) {
        totals[0] += static_cast<double>(loss);
        totals[16] += static_cast<double>(square);
        loss = square = 0.0f;
      }
    }
    p.segment_sum[(segment * p.outputs + o) * 16 + t.lane()] = sum;
  }
};

/// Residuals rounded to residual_bits in place, eight rows a thread.
struct RoundResiduals {
  using Params = EpochStep;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Key key = step_key(p, Purpose::kAct);
    const int64_t o = t.row() / p.books;
    const auto book = static_cast<int>(t.row() % p.books);
    const Spacing s = spacing_of(p.e_peak[o], p.residual_bits);
    const auto top = static_cast<int32_t>(top_of(p.residual_bits));
    int32_t sum = 0;
    for (int64_t r = 8 * t.index(); r < p.batch_rows; r += 8 * t.count()) {
      float* at = p.e + t.row() * p.batch_rows + r;
      const Words draws = draw4(key, static_cast<uint64_t>(r) / 8, static_cast<uint32_t>(o),
                                static_cast<uint32_t>(book));
      float e[8];
      load<8>(at, e);
      TX_UNROLL
      for (int k = 0; k < 8; ++k) {
        const int32_t q = round_one(e[k], s.inverse, uniform16(draws, k), top);
        sum += q;
        e[k] = static_cast<float>(q) * s.used;
      }
      store<8>(e, at);
    }
    sum = warp_sum(sum, t);
    if (t.lane() == 0) t.add(p.eq_total + o, sum);
  }
};

/// Gradient of a segment, a thread a column: rows in order.
struct Backward {
  using Params = EpochStep;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const BatchRows rows = rows_of(p);
    const int64_t segment = t.row() / p.outputs, o = t.row() % p.outputs,
                  begin = segment * p.segment_rows, rest = begin + p.segment_rows,
                  end = rest < rows.count ? rest : rows.count;
    for (int64_t j = t.index(); j < p.pitch; j += t.count()) {
      float g = 0.0f;
      for (int64_t r0 = begin; r0 < end; r0 += kChunkRows) {
        const int64_t last = r0 + kChunkRows < end ? r0 + kChunkRows : end;
        for (int book = 0; book < p.books; ++book) {
          const float* e = p.e + (o * p.books + p.books - 1 - book) * p.batch_rows;
          const float* row = row_of(p, rows, r0, book) + j;
          for (int64_t r = r0; r < last; ++r, row += p.pitch) g = std::fmaf(e[r], *row, g);
        }
      }
      p.partial[(segment * p.outputs + o) * p.np + j] = g;
    }
  }
};

/// The segments' sums become the gradient.
struct AddSegments {
  using Params = EpochStep;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const BatchRows rows = rows_of(p);
    const int64_t o = t.row(), used = (rows.count + p.segment_rows - 1) / p.segment_rows;
    const float scale = 1.0f / static_cast<float>(rows.count * p.books);
    const int64_t turns = (p.np + t.count() - 1) / t.count();
    for (int64_t turn = 0; turn < turns; ++turn) {  // whole warps: raise_peak needs all lanes
      const int64_t j = turn * t.count() + t.index();
      float g = 0.0f;
      if (j < p.cols && used > 0) {
        g = p.partial[o * p.np + j];
        for (int64_t s = 1; s < used; ++s) g += p.partial[(s * p.outputs + o) * p.np + j];
        g *= scale;
      }
      if (j < p.np) p.gradient[o * p.np + j] = g;
      raise_peak(t, p.g_peak + o, magnitude_bits(g));
    }
  }
};

}  // namespace

cudaError_t launch_float_gradient(const EpochStep& p, cudaStream_t stream) noexcept {
  const int64_t m = p.outputs;
  cudaError_t status = cudaSuccess;
  const auto then = [&](cudaError_t next) { status = status != cudaSuccess ? status : next; };
  if (p.model_bits <= 8)
    then(launch<RoundModel>(p, {blocks_for(m * p.np / 8, RoundModel::kThreads)}, stream));
  then(launch<Predict>(p, {p.batch_rows / kChunkRows, m}, stream));
  then(launch<Count>(p, {kSegments, m}, stream));
  if (p.residual_bits <= 8) {
    then(launch<RoundResiduals>(
        p, {blocks_for(p.batch_rows / 8, RoundResiduals::kThreads), m * p.books}, stream));
  }
  then(launch<Backward>(p, {blocks_for(p.pitch, Backward::kThreads), kSegments * m}, stream));
  then(launch<AddSegments>(p, {blocks_for(p.np, AddSegments::kThreads), m}, stream));
  return status;
}

}  // namespace torchext::cuda
