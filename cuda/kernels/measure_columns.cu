#include <cmath>

#include "kernels/philox.h"
#include "measure_columns.h"

namespace torchext::cuda {
namespace {

constexpr int64_t kChunk = cpu::kStatsChunk;
constexpr int64_t kNone = INT64_MAX;  // `found` counts down from here, so that 0 is "none so far"

TX_HD constexpr int64_t chunks_of(int64_t rows) { return (rows + kChunk - 1) / kChunk; }

/// A thread adds a column of a chunk, in row order.
template <class T>
struct MeasureChunk {
  using Params = MeasureParams;
  static constexpr int kThreads = 128;
  static constexpr int kAhead = 8;  // loads in flight

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t work = chunks_of(p.rows) * p.cols;
    for (int64_t i = t.index(); i < work; i += t.count()) {
      const int64_t chunk = i / p.cols, col = i % p.cols, begin = chunk * kChunk;
      const int64_t end = begin + kChunk < p.rows ? begin + kChunk : p.rows;
      const T* const x = static_cast<const T*>(p.x) + col;
      double sum = 0.0, lo = INFINITY, hi = -INFINITY, weighted = 0.0;
      int64_t bad = -1;
      for (int64_t row = begin; row < end; row += kAhead) {
        T held[kAhead];
        TX_UNROLL
        for (int k = 0; k < kAhead; ++k)
          held[k] = row + k < end ? x[(row + k) * p.row_stride] : T{0};
        TX_UNROLL
        for (int k = 0; k < kAhead; ++k) {
          if (row + k >= end) break;
          const double v = static_cast<double>(held[k]);
          sum += v;
          lo = v < lo ? v : lo;
          hi = v > hi ? v : hi;
          if (p.weighing.wanted()) weighted += p.weighing.term(p.weighing.of_row(row + k), v, col);
          if (!(std::fabs(v) < INFINITY) && bad < 0) bad = row + k;
        }
      }
      double* const part = p.parts + chunk * kStatsParts * p.cols + col;
      part[0] = sum;
      part[p.cols] = lo;
      part[2 * p.cols] = hi;
      part[3 * p.cols] = weighted;
      if (bad >= 0) t.most(p.found, kNone - (bad * p.cols + col));
    }
  }
};

/// A thread joins the chunks of a column in order.
struct JoinChunks {
  using Params = MeasureParams;
  static constexpr int kThreads = 64;  // few columns: many small blocks spread over the GPU

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t chunks = chunks_of(p.rows), n = p.cols;
    if (t.index() == 0) *p.found = *p.found == 0 ? -1 : kNone - *p.found;
    for (int64_t j = t.index(); j < n; j += t.count()) {
      double* const state = p.state + j;
      double sum = state[n], lo = state[2 * n], hi = state[3 * n], weighted = state[4 * n];
      for (int64_t c = 0; c < chunks; ++c) {
        const double* part = p.parts + c * kStatsParts * n + j;
        sum += part[0];
        lo = part[n] < lo ? part[n] : lo;
        hi = part[2 * n] > hi ? part[2 * n] : hi;
        weighted += part[3 * n];
      }
      state[0] += static_cast<double>(p.rows);
      state[n] = sum;
      state[2 * n] = lo + 0.0;  // one zero, whatever its sign
      state[3 * n] = hi + 0.0;
      state[4 * n] = weighted;
    }
  }
};

}  // namespace

cudaError_t launch_measure_columns(const MeasureParams& p, cudaStream_t stream) noexcept {
  cudaError_t status = zero(p.found, sizeof *p.found, stream);
  if (status != cudaSuccess) return status;
  const Launch at{blocks_for(chunks_of(p.rows) * p.cols, MeasureChunk<float>::kThreads, 65536)};
  status = p.f64 ? launch<MeasureChunk<double>>(p, at, stream)
                 : launch<MeasureChunk<float>>(p, at, stream);
  if (status != cudaSuccess) return status;
  return launch<JoinChunks>(p, {blocks_for(p.cols, JoinChunks::kThreads)}, stream);
}

}  // namespace torchext::cuda
