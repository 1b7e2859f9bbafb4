// The exact pass on CUDA: scores, slopes, gradient, each kernel at the speed of the memory.
//
// The CPU's order of summation is parallel enough for a GPU: a score has eight lanes (column mod
// 8), eight threads here, and a gradient is formed in chunks of 1024 rows, a thread a column here.
// So both give the same bits.
#include <cmath>

#include "exact_pass.h"
#include "kernels/linear/row_loss.h"
#include "ordered_sum.h"

namespace torchext::cuda {
namespace {

using cpu::kExactChunk;

/// Rows [first, first + rows) of the pass, and what one kernel leaves for the next.
struct Slab {
  cpu::ExactPass pass;
  int64_t first, rows;
  double *scores, *losses, *parts;  // [rows, outputs], then slopes; [rows]; [chunks, size]
};

/// z[k] = offset + x_k . w of kOut outputs at a time, eight lanes a row.
template <class T, int kOut>
struct Scores {
  using Params = Slab;
  static constexpr int kThreads = 256, kLanes = 8, kRows = kThreads / kLanes;
  static constexpr int kAhead = 8;  // loads in flight

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::ExactPass& a = p.pass;
    const int lane = t.thread() % kLanes;
    for (int64_t group = t.block(); group * kRows < p.rows; group += t.blocks()) {
      const int64_t own = group * kRows + t.thread() / kLanes;
      const int64_t row = own < p.rows ? own : p.rows - 1;  // every lane takes part in the shuffles
      const T* x = static_cast<const T*>(a.x) + (p.first + row) * a.stride;
      for (int o = 0; o < a.outputs; o += kOut) {
        double sum[kOut] = {};
        const double* w[kOut];
        TX_UNROLL
        for (int k = 0; k < kOut; ++k) w[k] = a.w + (o + k < a.outputs ? o + k : o) * a.cols;
        dot(x, w, lane, a.cols, sum);
        TX_UNROLL
        for (int k = 0; k < kOut; ++k) {
          TX_UNROLL
          for (int half = kLanes / 2; half > 0; half /= 2) sum[k] += t.shuffle_down(sum[k], half);
          if (lane != 0 || own >= p.rows || o + k >= a.outputs) continue;
          const double z = sum[k] + a.offset[o + k];
          p.scores[row * a.outputs + o + k] = z;
          a.z[(o + k) * a.z_stride + p.first + row] = static_cast<float>(z);
        }
      }
    }
  }

 private:
  TX_DEVICE static void dot(const T* x, const double* const* w, int64_t j, int64_t cols,
                            double* sum) {
    for (; j + kLanes * (kAhead - 1) < cols; j += kLanes * kAhead) {
      T held[kAhead];
      TX_UNROLL
      for (int u = 0; u < kAhead; ++u) held[u] = x[j + kLanes * u];
      TX_UNROLL
      for (int u = 0; u < kAhead; ++u) {
        TX_UNROLL
        for (int k = 0; k < kOut; ++k)
          sum[k] = std::fma(static_cast<double>(held[u]), w[k][j + kLanes * u], sum[k]);
      }
    }
    for (; j < cols; j += kLanes) {
      TX_UNROLL
      for (int k = 0; k < kOut; ++k) sum[k] = std::fma(static_cast<double>(x[j]), w[k][j], sum[k]);
    }
  }
};

/// Slopes in place of the scores, and the losses.
struct Slopes {
  using Params = Slab;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::ExactPass& a = p.pass;
    for (int64_t k = t.index(); k < p.rows; k += t.count()) {
      double loss = 0.0;
      cpu::row_losses<double, 1>(a, p.first + k, 1, p.scores + k * a.outputs, &loss);
      p.losses[k] = loss;
    }
  }
};

/// Sums of a chunk of rows: a block's threads take adjacent columns. After the columns of x come
/// that of the intercept, which is 1, and that of the loss, whose factor is not the slope.
template <class T, int kOut>
struct Gradient {
  using Params = Slab;
  static constexpr int kThreads = 128, kWidth = kOut + 1;
  static constexpr int kAhead = 8;
  static constexpr size_t kShared = sizeof(double) * kThreads * kWidth;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::ExactPass& a = p.pass;
    const int64_t size = a.outputs * (a.cols + 1) + 1, chunk = t.block();
    const int64_t begin = chunk * kExactChunk,
                  end = begin + kExactChunk < p.rows ? begin + kExactChunk : p.rows;
    double* const part = p.parts + chunk * size;
    for (int64_t tile = t.row(); tile * kThreads < a.cols + 2; tile += t.rows()) {
      const int64_t j = tile * kThreads + t.thread();
      for (int o = 0; o < a.outputs; o += kOut) {
        double sum[kOut] = {};
        for (int64_t first = begin; first < end; first += kThreads) {
          const int count = static_cast<int>(end - first < kThreads ? end - first : kThreads);
          fetch(p, t, first, count, o);
          if (j < a.cols) {
            const T* x = static_cast<const T*>(a.x) + (p.first + first) * a.stride + j;
            add(t.shared<double>(), x, a.stride, count, sum);
          } else if (j == a.cols) {
            for (int r = 0; r < count; ++r) {
              TX_UNROLL
              for (int k = 0; k < kOut; ++k) sum[k] += t.shared<double>()[r * kWidth + k];
            }
          } else if (j == a.cols + 1) {
            for (int r = 0; r < count; ++r) sum[0] += t.shared<double>()[r * kWidth + kOut];
          }
        }
        TX_UNROLL
        for (int k = 0; k < kOut; ++k) {
          if (j <= a.cols && o + k < a.outputs) part[(o + k) * (a.cols + 1) + j] = sum[k];
        }
        if (j == a.cols + 1 && o == 0) part[size - 1] = sum[0];
      }
    }
  }

 private:
  /// Slopes of kOut outputs and the loss of every row, to shared memory.
  TX_DEVICE static void fetch(const Params& p, const Thread& t, int64_t first, int count, int o) {
    const int m = p.pass.outputs;
    t.sync();  // the rows before are done with
    if (t.thread() < count) {
      double* const to = t.shared<double>() + t.thread() * kWidth;
      const int64_t row = first + t.thread();
      TX_UNROLL
      for (int k = 0; k < kOut; ++k) to[k] = o + k < m ? p.scores[row * m + o + k] : 0.0;
      to[kOut] = p.losses[row];
    }
    t.sync();
  }

  TX_DEVICE static void add(const double* e, const T* x, int64_t stride, int count, double* sum) {
    int r = 0;
    for (; r + kAhead <= count; r += kAhead, x += kAhead * stride) {
      T held[kAhead];
      TX_UNROLL
      for (int u = 0; u < kAhead; ++u) held[u] = x[u * stride];
      TX_UNROLL
      for (int u = 0; u < kAhead; ++u) {
        TX_UNROLL
        for (int k = 0; k < kOut; ++k)
          sum[k] = std::fma(e[(r + u) * kWidth + k], static_cast<double>(held[u]), sum[k]);
      }
    }
    for (; r < count; ++r, x += stride) {
      TX_UNROLL
      for (int k = 0; k < kOut; ++k)
        sum[k] = std::fma(e[r * kWidth + k], static_cast<double>(*x), sum[k]);
    }
  }
};

struct Sizes {
  int64_t slab, chunks, part;  // rows at a time, their chunks, sums of a chunk
};

Sizes sizes_of(int64_t rows, int64_t cols, int outputs) noexcept {
  constexpr int64_t kMost = int64_t{1} << 24;  // doubles of scratch memory, where rows allow it
  const int64_t part = outputs * (cols + 1) + 1, each = kExactChunk * (outputs + 1) + part;
  const int64_t all = (rows + kExactChunk - 1) / kExactChunk,
                most = kMost / each < 1 ? 1 : kMost / each, chunks = all < most ? all : most;
  return {chunks * kExactChunk, chunks, part};
}

template <class T, int kOut>
cudaError_t launch_slab(const Slab& s, int64_t chunks, cudaStream_t stream) noexcept {
  using Dots = Scores<T, kOut>;
  using Sums = Gradient<T, kOut>;
  const cudaError_t scores =
      launch<Dots>(s, {blocks_for(s.rows, Dots::kRows, int64_t{1} << 20)}, stream);
  if (scores != cudaSuccess) return scores;
  const cudaError_t slopes = launch<Slopes>(s, {blocks_for(s.rows, Slopes::kThreads)}, stream);
  if (slopes != cudaSuccess) return slopes;
  const int64_t tiles = blocks_for(s.pass.cols + 2, Sums::kThreads, 65535);
  return launch<Sums>(s, {chunks, tiles, Sums::kShared}, stream);
}

template <class T>
cudaError_t launch_type(const Slab& s, int64_t chunks, cudaStream_t stream) noexcept {
  return s.pass.outputs == 1 ? launch_slab<T, 1>(s, chunks, stream)
                             : launch_slab<T, 8>(s, chunks, stream);
}

cudaError_t launch_slab(const Slab& s, int64_t chunks, cudaStream_t stream) noexcept {
  switch (s.pass.type) {
    case cpu::RowType::f32: return launch_type<float>(s, chunks, stream);
    case cpu::RowType::f64: return launch_type<double>(s, chunks, stream);
    case cpu::RowType::i8: return launch_type<int8_t>(s, chunks, stream);
    case cpu::RowType::i16: return launch_type<int16_t>(s, chunks, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

int64_t exact_pass_workspace(int64_t rows, int64_t cols, int outputs) noexcept {
  const Sizes sizes = sizes_of(rows, cols, outputs);
  return sizes.slab * (outputs + 1) + sizes.chunks * sizes.part;
}

cudaError_t launch_exact_pass(const ExactPassParams& p, cudaStream_t stream) noexcept {
  const Sizes sizes = sizes_of(p.rows, p.pass.cols, p.pass.outputs);
  Slab s{p.pass, 0, 0, p.workspace, nullptr, nullptr};
  s.losses = s.scores + sizes.slab * p.pass.outputs;
  s.parts = s.losses + sizes.slab;
  for (; s.first < p.rows; s.first += sizes.slab) {
    s.rows = p.rows - s.first < sizes.slab ? p.rows - s.first : sizes.slab;
    const int64_t chunks = (s.rows + kExactChunk - 1) / kExactChunk;
    const cudaError_t pass = launch_slab(s, chunks, stream);
    if (pass != cudaSuccess) return pass;
    const cudaError_t sum =
        launch_ordered_sum({s.parts, p.gradient, p.total, chunks, sizes.part}, stream);
    if (sum != cudaSuccess) return sum;
  }
  return cudaSuccess;
}

}  // namespace torchext::cuda
