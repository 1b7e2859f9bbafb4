// Rows in the units of a solver: on one grid for all columns, or scaled by column.
#include <cmath>

#include "scaled_rows.h"
#include "warp_reduce.h"

namespace torchext::cuda {
namespace {

struct GridLaunch {
  cpu::GridRows g;
  int64_t rows;
};

/// A warp takes kEach rows at a time, so that mean and inverse of a column are read once for them.
template <class T, class U>
struct GridKernel {
  using Params = GridLaunch;
  static constexpr int kThreads = 256, kWarps = kThreads / 32, kEach = 4;
  static constexpr int kMinBlocks = 4;  // the compiler would rather have one more, and spill

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::GridRows& g = p.g;
    const int64_t groups = (p.rows + kEach - 1) / kEach;
    for (int64_t group = t.block() * kWarps + t.warp(); group < groups;
         group += t.blocks() * kWarps) {
      const int64_t first = group * kEach;
      const int count = static_cast<int>(p.rows - first < kEach ? p.rows - first : kEach);
      int64_t square[kEach] = {};
      for (int64_t j = t.lane(); j < g.cols; j += 32) {
        const double mean = g.mean[j], inverse = g.inverse[j];
        TX_UNROLL
        for (int r = 0; r < kEach; ++r) {
          if (r >= count) continue;
          const T x = static_cast<const T*>(g.x)[(first + r) * g.row_stride + j];
          double v = (static_cast<double>(x) - mean) * inverse;
          v = v < g.top ? v : g.top;
          v = v > -g.top ? v : -g.top;
          const auto u = static_cast<int32_t>(std::rint(v));
          static_cast<U*>(g.codes)[(first + r) * g.pitch + j] = static_cast<U>(u);
          square[r] += u * u;
        }
      }
      TX_UNROLL
      for (int r = 0; r < kEach; ++r) {
        square[r] = warp_sum(square[r], t);
        if (t.lane() == 0 && r < count) g.squares[first + r] = static_cast<double>(square[r]);
      }
    }
  }
};

/// No grid: eight threads a row, whose sums (column mod 8) are joined in order.
template <class T>
struct PlainKernel {
  using Params = GridLaunch;
  static constexpr int kThreads = 256, kLanes = 8, kRows = kThreads / kLanes;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::GridRows& g = p.g;
    const int lane = t.thread() % kLanes;
    for (int64_t group = t.block(); group * kRows < p.rows; group += t.blocks()) {
      const int64_t row = group * kRows + t.thread() / kLanes;
      double sum = 0.0;
      for (int64_t j = lane; row < p.rows && j < g.cols; j += kLanes) {
        const T x = static_cast<const T*>(g.x)[row * g.row_stride + j];
        const auto u = static_cast<float>((static_cast<double>(x) - g.mean[j]) * g.inverse[j]);
        static_cast<float*>(g.codes)[row * g.pitch + j] = u;
        sum += static_cast<double>(u) * static_cast<double>(u);
      }
      double square = 0.0;
      TX_UNROLL
      for (int l = 0; l < kLanes; ++l) square += t.shuffle(sum, t.lane() / kLanes * kLanes + l);
      if (lane == 0 && row < p.rows) g.squares[row] = square;
    }
  }
};

struct ScaleLaunch {
  cpu::ScaleRows s;
  int64_t rows, limit;
};

template <class T>
struct ScaleKernel {
  using Params = ScaleLaunch;
  static constexpr int kThreads = 256, kWarps = kThreads / 32;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::ScaleRows& s = p.s;
    for (int64_t i = t.block() * kWarps + t.warp(); i < p.rows; i += t.blocks() * kWarps) {
      const int64_t row = s.index != nullptr ? s.index[i] : i;
      const bool there = row >= 0 && row < p.limit;
      const T* const x = static_cast<const T*>(s.x) + (there ? row : 0) * s.row_stride;
      for (int64_t j = t.lane(); j < s.cols; j += 32) {
        s.out[i * s.cols + j] =
            there ? static_cast<float>((static_cast<double>(x[j]) - s.mean[j]) / s.scale[j]) : NAN;
      }
    }
  }
};

template <class T, class U>
cudaError_t launch_grid(const GridLaunch& p, cudaStream_t stream) noexcept {
  using Kernel = GridKernel<T, U>;
  return launch<Kernel>(p, {blocks_for(p.rows, Kernel::kWarps * Kernel::kEach)}, stream);
}

template <class T>
cudaError_t launch_type(const GridLaunch& p, cudaStream_t stream) noexcept {
  using Plain = PlainKernel<T>;
  switch (p.g.kind) {
    case cpu::GridCode::i8: return launch_grid<T, int8_t>(p, stream);
    case cpu::GridCode::i16: return launch_grid<T, int16_t>(p, stream);
    case cpu::GridCode::f32:
      if (p.g.top > 0) return launch_grid<T, float>(p, stream);
      return launch<Plain>(p, {blocks_for(p.rows, Plain::kRows)}, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_grid_rows(const cpu::GridRows& g, int64_t rows, cudaStream_t stream) noexcept {
  if (rows == 0) return cudaSuccess;
  const GridLaunch p{g, rows};
  return g.f64 ? launch_type<double>(p, stream) : launch_type<float>(p, stream);
}

cudaError_t launch_scale_rows(const cpu::ScaleRows& s, int64_t rows, int64_t limit,
                              cudaStream_t stream) noexcept {
  if (rows == 0) return cudaSuccess;
  const ScaleLaunch p{s, rows, limit};
  const Launch at{blocks_for(rows, ScaleKernel<float>::kWarps)};
  return s.f64 ? launch<ScaleKernel<double>>(p, at, stream)
               : launch<ScaleKernel<float>>(p, at, stream);
}

}  // namespace torchext::cuda
