// The anchor's part of the encoding pass: scores of every row at x0, and what their slopes add.
#include "encode_columns.h"
#include "encode_value.h"

namespace torchext::cuda {
namespace {

using cpu::EncodeMode;

/// Slopes of the loss. A block has 32 rows; it encodes 32 columns at a time into shared
/// memory, from which a thread adds them to a score: in column order, as the CPU does.
template <EncodeMode kMode>
struct AnchorSlopes {
  using Params = EncodeParams;
  static constexpr int kThreads = 128;
  static constexpr bool kTwice = kMode == EncodeMode::twice;
  static constexpr int kKinds = kTwice ? 3 : 2;  // scores of a, q and q2
  static constexpr int kSide = 32, kPitch = kSide + 1, kPanel = kSide * kPitch;
  static constexpr size_t kShared = sizeof(float) * kKinds * kPanel;

  /// Values of the rows and of the columns from `col` on; lane c has column c.
  TX_DEVICE static void encode(const Params& p, const Thread& t, Key key, int64_t row0, int rows,
                               int64_t col) {
    if (col >= p.cols) return;
    const ColumnSearch search(p, col);
    float* const panel = t.shared<float>();
    for (int r = t.warp(); r < rows; r += kThreads / 32) {
      const EncodedValue e = encode_value<kMode>(p, search, key, row0 + r, col);
      const int at = r * kPitch + t.lane();
      panel[at] = e.a;
      panel[kPanel + at] = e.q;
      if (kTwice) panel[2 * kPanel + at] = e.q2;
    }
  }

  /// Adds the columns of the panel to the scores, which lie where the slopes will.
  TX_DEVICE static void add_scores(const Params& p, const Thread& t, int64_t row0, int rows,
                                   int64_t col0) {
    const int cols = p.cols - col0 < kSide ? static_cast<int>(p.cols - col0) : kSide;
    for (int64_t i = t.warp(); i < p.outputs * kKinds; i += kThreads / 32) {
      if (t.lane() >= rows) continue;
      const int64_t o = i / kKinds, kind = i % kKinds;
      const float* const value = t.shared<float>() + kind * kPanel + t.lane() * kPitch;
      const float* const x0 = p.x0 + o * p.cols + col0;
      double* const score = p.slopes + (kSlopes * o + kind) * p.rows + row0 + t.lane();
      double z = col0 == 0 ? 0.0 : *score;
      for (int j = 0; j < cols; ++j)
        z = std::fma(static_cast<double>(value[j]), static_cast<double>(x0[j]), z);
      *score = z;
    }
  }

  /// Scores of a row and output to its slopes.
  TX_DEVICE static void finish(const Params& p, int64_t o, int64_t row) {
    double* const slope = p.slopes + kSlopes * o * p.rows + row;
    const double b = p.intercept != nullptr ? p.intercept[o] : 0.0, w = weight_of(p, row);
    const double y = p.y[row * p.outputs + o];
    const LossAndSlope exact = cpu::anchor_loss(p.loss, slope[kExactSlope * p.rows] + b, y);
    const LossAndSlope first = cpu::anchor_loss(p.loss, slope[kFirstSlope * p.rows] + b, y);
    slope[kRowLoss * p.rows] = w * exact.loss;
    slope[kExactSlope * p.rows] = w * exact.slope;
    if (kTwice) {  // symmetric: either draw is multiplied by the slope at the other one
      const LossAndSlope second = cpu::anchor_loss(p.loss, slope[kSecondSlope * p.rows] + b, y);
      slope[kFirstSlope * p.rows] = w * 0.5 * second.slope;
      slope[kSecondSlope * p.rows] = w * 0.5 * first.slope;
    } else {
      slope[kFirstSlope * p.rows] = w * first.slope;
      slope[kSecondSlope * p.rows] = 0.0;
    }
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Key key = data_key(p);
    const int64_t blocks = (p.rows + kSide - 1) / kSide;
    for (int64_t at = t.block(); at < blocks; at += t.blocks()) {
      const int64_t row0 = at * kSide;
      const int rows = p.rows - row0 < kSide ? static_cast<int>(p.rows - row0) : kSide;
      for (int64_t col0 = 0; col0 < p.cols; col0 += kSide) {
        encode(p, t, key, row0, rows, col0 + t.lane());
        t.sync();
        add_scores(p, t, row0, rows, col0);
        t.sync();
      }
      for (int64_t o = t.warp(); o < p.outputs; o += kThreads / 32)
        if (t.lane() < rows) finish(p, o, row0 + t.lane());
    }
  }
};

/// Sums of a and of the decoded values with the slopes, in the order of the moments. A thread keeps
/// its values of a tile in its own part of shared memory: they would be too many registers.
template <EncodeMode kMode>
struct AnchorGradients {
  using Params = EncodeParams;
  static constexpr int kThreads = 128;
  static constexpr bool kTwice = kMode == EncodeMode::twice;
  static constexpr int kKinds = kTwice ? 3 : 2;  // a, q and q2
  static constexpr size_t kShared = sizeof(float) * kKinds * kRowsALane * kThreads;

  TX_DEVICE static void encode(const Params& p, const GroupOfChunk& g, const ColumnSearch& search,
                               Key key, int64_t row0, float* held) {
    for (int k = 0; k < kRowsALane; ++k, held += kKinds * kThreads) {
      const int64_t row = row0 + k * kLanes;
      EncodedValue e{};
      if (row < g.end && g.real) e = encode_value<kMode>(p, search, key, row, g.col);
      held[0] = e.a;
      held[kThreads] = e.q;
      if (kTwice) held[2 * kThreads] = e.q2;
    }
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Key key = data_key(p);
    float* const held = t.shared<float>() + t.thread();
    for (int64_t at = t.index() / 32; at < GroupOfChunk::count(p); at += t.count() / 32) {
      const GroupOfChunk g(p, at, t.lane());
      const ColumnSearch search(p, g.col);
      double* const sums = p.chunk_sums + g.chunk * encode_sums(p.outputs, p.cols) + g.col;
      for (int64_t tile = g.begin; tile < g.end; tile += kTileRows) {
        const int64_t row0 = tile + g.row;
        encode(p, g, search, key, row0, held);
        for (int64_t o = 0; o < p.outputs; ++o) {
          const double* const slope = p.slopes + kSlopes * o * p.rows + row0;
          double exact = 0.0, decoded = 0.0;
          TX_UNROLL
          for (int k = 0; k < kRowsALane; ++k) {
            if (row0 + k * kLanes >= g.end) break;
            const double* const here = slope + k * kLanes;
            const float* const value = held + k * kKinds * kThreads;
            const double a = value[0], q = value[kThreads];
            exact = std::fma(a, here[kExactSlope * p.rows], exact);
            decoded = std::fma(q, here[kFirstSlope * p.rows], decoded);
            if (!kTwice) continue;
            const double q2 = value[2 * kThreads];
            decoded = std::fma(q2, here[kSecondSlope * p.rows], decoded);
          }
          exact = join_lanes(exact, t);
          decoded = join_lanes(decoded, t);
          if (!g.writes) continue;
          double* const to = sums + (cpu::kMoments + cpu::kOutputSums * o) * p.cols;
          to[cpu::kExactGradient * p.cols] += exact;
          to[cpu::kDecodedGradient * p.cols] += decoded;
        }
      }
    }
  }
};

template <EncodeMode kMode>
cudaError_t launch_mode(const EncodeParams& p, cudaStream_t stream) noexcept {
  using Slopes = AnchorSlopes<kMode>;
  using Gradients = AnchorGradients<kMode>;
  const cudaError_t status =
      launch<Slopes>(p, {blocks_for(p.rows, Slopes::kSide, 65536), 1, Slopes::kShared}, stream);
  if (status != cudaSuccess) return status;
  const int64_t threads = 32 * encode_chunks(p.rows) * ((p.cols + kGroup - 1) / kGroup);
  const int64_t blocks = blocks_for(threads, Gradients::kThreads, 65536);
  return launch<Gradients>(p, {blocks, 1, Gradients::kShared}, stream);
}

}  // namespace

cudaError_t launch_anchor(const EncodeParams& p, cudaStream_t stream) noexcept {
  switch (p.mode) {
    case EncodeMode::nearest: return launch_mode<EncodeMode::nearest>(p, stream);
    case EncodeMode::stochastic: return launch_mode<EncodeMode::stochastic>(p, stream);
    case EncodeMode::twice: return launch_mode<EncodeMode::twice>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace torchext::cuda
