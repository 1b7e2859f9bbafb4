#include "encode_columns.h"
#include "encode_search.h"
#include "kernels/layout.h"
#include "ordered_sum.h"

namespace torchext::cuda {
namespace {

using cpu::EncodeMode;
constexpr int kGroup = 4;                       // columns of a tile4 group
constexpr int kLanes = 32 / kGroup;             // rows that a warp holds at a time
constexpr int kRowsALane = kTileRows / kLanes;  // of a tile
constexpr int64_t kChunk = cpu::kEncodeChunk;

TX_DEVICE int64_t chunks_of(int64_t rows) { return (rows + kChunk - 1) / kChunk; }

/// Joins the eight lanes of a column by 4, 2, 1: the order of the CPU's sums.
TX_DEVICE double join(double sum, const Thread& t) {
  for (int half = 16; half >= kGroup; half /= 2) sum += t.shuffle_xor(sum, half);
  return sum;
}

/// unit(draw1(..)) of an element in column lane % 4 of its group, where rows start at multiples of
/// four; by selects, because a Philox block that is indexed would lie in memory.
TX_DEVICE float uniform(Key key, uint64_t element, uint32_t draw, const Thread& t) {
  const Words r = draw4(key, element / 4, 0, draw);
  const int c = t.lane() % kGroup;
  return unit(c < 2 ? (c == 0 ? r.w[0] : r.w[1]) : (c == 2 ? r.w[2] : r.w[3]));
}

/// A lane's codes of a tile. It owns whole bytes: byte 32 B + lane of the group for B < bits.
struct CodeBytes {
  uint64_t low = 0, high = 0;  // two words rather than an array: an array would lie in memory

  TX_DEVICE void put(const Planes& planes, int row, uint32_t code) {
    for (int k = 0; k < planes.count; ++k) {
      const int width = planes.width[k];
      const FieldPlace at = field_place(Layout::tile4, row, 0, width, planes.shift[k]);
      const uint64_t field = code >> planes.shift[k] & ((1u << width) - 1);
      const int byte = static_cast<int>(at.byte / 32), shift = 8 * (byte % 8) + at.shift;
      low |= byte < 8 ? field << shift : 0;
      high |= byte < 8 ? 0 : field << shift;
    }
  }
  TX_DEVICE void store(uint8_t* group, int lane, int bits) const {
    for (int byte = 0; byte < bits; ++byte)
      group[32 * byte + lane] = static_cast<uint8_t>((byte < 8 ? low : high) >> 8 * (byte % 8));
  }
};

/// A warp encodes four columns of a chunk; lane 4 r + c has row r of 8 and column c, so that its
/// sums are a lane of the CPU's and its bytes are its own.
template <EncodeMode kMode>
struct Encode {
  using Params = EncodeParams;
  static constexpr int kThreads = 128;
  static constexpr bool kTwice = kMode == EncodeMode::twice;

  struct Value {
    float a, q, q2;
    double v;
    uint32_t code;
  };

  TX_DEVICE static Value encode(const Params& p, const Thread& t, const ColumnSearch& search,
                                Key key, int64_t row, int64_t col, float a) {
    const EncodeCell cell = search.find(a);
    auto code = static_cast<uint32_t>(cell.index);
    if (kMode == EncodeMode::nearest) {
      const bool up =
          !search.rounded() && cell.upper > cell.lower && a > (cell.lower + cell.upper) / 2.0f;
      const float q = up ? cell.upper : cell.lower;
      return {a, q, q, 0.0, code + (up ? 1u : 0u)};
    }
    const float rise = a - cell.lower, width = cell.upper - cell.lower;
    const float f = rise / width;
    const int64_t position = p.position != nullptr ? p.position[row] : p.row0 + row;
    const auto pitch = static_cast<uint64_t>((p.cols + 63) / 64 * 64);
    const uint64_t element = static_cast<uint64_t>(position) * pitch + static_cast<uint64_t>(col);
    const bool two = width > 0.0f;  // a column of one level keeps code 0
    const bool up = two && uniform(key, element, 0, t) < f;
    const float q = up ? cell.upper : cell.lower;
    double v = (static_cast<double>(cell.upper) - a) * (static_cast<double>(a) - cell.lower);
    v = v > 0.0 ? v : 0.0;
    if (!kTwice) return {a, q, q, v, code + (up ? 1u : 0u)};
    const bool up2 = two && uniform(key, element, 1, t) < f;
    code |= (up ? 1u : 0u) << (p.bits - 2) | (up2 ? 1u : 0u) << (p.bits - 1);
    return {a, q, up2 ? cell.upper : cell.lower, v, code};
  }

  TX_DEVICE static void add_moments(double* sum, const Value& e, double w) {
    const double a = e.a, q = e.q, q2 = e.q2, d = q - a, d2 = q2 - a;
    const double half = kTwice ? 0.5 * w : w;
    sum[cpu::kSquaredError] = std::fma(half * d, d, sum[cpu::kSquaredError]);
    if (kTwice) sum[cpu::kSquaredError] = std::fma(half * d2, d2, sum[cpu::kSquaredError]);
    sum[cpu::kVariance] = std::fma(w, e.v, sum[cpu::kVariance]);
    sum[cpu::kVarianceSquare] = std::fma(w * e.v, e.v, sum[cpu::kVarianceSquare]);
    sum[cpu::kExactSquare] = std::fma(w * a, a, sum[cpu::kExactSquare]);
    sum[cpu::kDecodedSquare] = std::fma(w * q, q2, sum[cpu::kDecodedSquare]);
    sum[cpu::kDecoded] = std::fma(half, kTwice ? q + q2 : q, sum[cpu::kDecoded]);
  }

  /// The sums with every output's targets over the rows that a lane has of a tile.
  TX_DEVICE static void add_targets(const Params& p, const Thread& t, int64_t tile_row, int64_t end,
                                    const float* a, const float* decoded_q, const float* q2,
                                    bool first, bool writes, double* to) {
    for (int64_t o = 0; o < p.outputs; ++o, to += cpu::kOutputSums * p.cols) {
      double exact = 0.0, error = 0.0;
      TX_UNROLL
      for (int k = 0; k < kRowsALane; ++k) {
        const int64_t row = tile_row + k * kLanes + t.lane() / kGroup;
        if (row >= end) break;
        const double w = p.weight != nullptr ? p.weight[row] : 1.0,
                     y = w * p.y[row * p.outputs + o];
        const double q = decoded_q[k];
        const double decoded = kTwice ? 0.5 * (q + static_cast<double>(q2[k])) : q;
        exact = std::fma(static_cast<double>(a[k]), y, exact);
        error = std::fma(decoded - a[k], y, error);
      }
      exact = join(exact, t);
      error = join(error, t);
      if (!writes) continue;
      to[0] = (first ? 0.0 : to[0]) + exact;
      to[p.cols] = (first ? 0.0 : to[p.cols]) + error;
      if (first) to[2 * p.cols] = to[3 * p.cols] = 0.0;  // of the anchor
    }
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t groups = (p.cols + kGroup - 1) / kGroup, work = groups * chunks_of(p.rows);
    const Key key = fold_in(fold_in(Key{p.key[0], p.key[1]}, Purpose::kData), p.copy);
    const int64_t size = (cpu::kMoments + cpu::kOutputSums * p.outputs) * p.cols;
    for (int64_t at = t.index() / 32; at < work; at += t.count() / 32) {
      const int64_t chunk = at / groups, group = at % groups;
      const int64_t own = kGroup * group + t.lane() % kGroup;
      const bool real = own < p.cols;
      const int64_t col = real ? own : p.cols - 1;  // a lane beyond the columns joins the exchanges
      const bool writes = real && t.lane() < kGroup;
      const int64_t begin = chunk * kChunk, end = begin + kChunk < p.rows ? begin + kChunk : p.rows;
      const ColumnSearch search(p, col);
      const double mean = p.mean[col], scale = p.scale[col];
      const float least = p.bounds != nullptr ? p.bounds[2 * col] : -INFINITY;
      const float most = p.bounds != nullptr ? p.bounds[2 * col + 1] : INFINITY;
      double moments[cpu::kMoments] = {};
      int64_t clipped = 0;
      double* const to = p.chunk_sums + chunk * size + col;
      for (int64_t tile = begin; tile < end; tile += kTileRows) {
        double sum[cpu::kMoments] = {};
        CodeBytes bytes;
        float a[kRowsALane], q[kRowsALane], q2[kRowsALane];
        TX_UNROLL
        for (int k = 0; k < kRowsALane; ++k) {
          const int in = k * kLanes + t.lane() / kGroup;
          const int64_t row = tile + in;
          a[k] = q[k] = q2[k] = 0.0f;
          if (row >= end || !real) continue;
          const int64_t from = row * p.row_stride + col;
          const double x = p.f64 ? static_cast<const double*>(p.x)[from]
                                 : static_cast<double>(static_cast<const float*>(p.x)[from]);
          const Value e =
              encode(p, t, search, key, row, col, static_cast<float>((x - mean) / scale));
          clipped += e.a < least || e.a > most ? 1 : 0;
          bytes.put(p.planes, in, e.code);
          add_moments(sum, e, p.weight != nullptr ? p.weight[row] : 1.0);
          a[k] = e.a;
          q[k] = e.q;
          q2[k] = e.q2;
        }
        bytes.store(p.codes + tile / kTileRows * layout_unit_bytes(Layout::tile4, p.cols, p.bits) +
                        field_base(Layout::tile4, kGroup * group, p.cols, p.bits, 0),
                    t.lane(), p.bits);
        TX_UNROLL
        for (int s = 0; s < cpu::kMoments; ++s) moments[s] += join(sum[s], t);
        add_targets(p, t, tile, end, a, q, q2, tile == begin, writes, to + cpu::kMoments * p.cols);
      }
      TX_UNROLL
      for (int s = 0; s < cpu::kMoments; ++s) {
        if (writes) to[s * p.cols] = moments[s];
      }
      if (clipped > 0) t.add(p.clipped + col, clipped);
    }
  }
};

/// Sums of w y per output and of w, each chunk in row order by one thread.
struct EncodeTotals {
  using Params = EncodeParams;
  static constexpr int kThreads = 64;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t width = p.outputs + 1, work = width * chunks_of(p.rows);
    for (int64_t i = t.index(); i < work; i += t.count()) {
      const int64_t o = i % width, begin = i / width * kChunk;
      const int64_t end = begin + kChunk < p.rows ? begin + kChunk : p.rows;
      double sum = 0.0;
      for (int64_t row = begin; row < end; ++row) {
        const double w = p.weight != nullptr ? p.weight[row] : 1.0;
        sum += o < p.outputs ? w * p.y[row * p.outputs + o] : w;
      }
      p.chunk_totals[i] = sum;
    }
  }
};

template <class Kernel>
cudaError_t launch_over(const EncodeParams& p, int64_t threads, cudaStream_t stream) noexcept {
  return launch<Kernel>(p, {blocks_for(threads, Kernel::kThreads, 65536)}, stream);
}

cudaError_t launch_codes(const EncodeParams& p, int64_t chunks, cudaStream_t stream) noexcept {
  const int64_t threads = 32 * chunks * ((p.cols + kGroup - 1) / kGroup);
  switch (p.mode) {
    case EncodeMode::nearest: return launch_over<Encode<EncodeMode::nearest>>(p, threads, stream);
    case EncodeMode::stochastic:
      return launch_over<Encode<EncodeMode::stochastic>>(p, threads, stream);
    case EncodeMode::twice: return launch_over<Encode<EncodeMode::twice>>(p, threads, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_encode(const EncodeParams& p, cudaStream_t stream) noexcept {
  if (p.rows == 0 || p.cols == 0) return cudaSuccess;
  const int64_t chunks = (p.rows + kChunk - 1) / kChunk, width = p.outputs + 1;
  const int64_t size = (cpu::kMoments + cpu::kOutputSums * p.outputs) * p.cols;
  cudaError_t status = launch_codes(p, chunks, stream);
  if (status != cudaSuccess) return status;
  status = launch_ordered_sum({p.chunk_sums, p.sums, nullptr, chunks, size}, stream);
  if (status != cudaSuccess) return status;
  status = launch_over<EncodeTotals>(p, chunks * width, stream);
  if (status != cudaSuccess) return status;
  return launch_ordered_sum({p.chunk_totals, p.totals, nullptr, chunks, width}, stream);
}

}  // namespace torchext::cuda
