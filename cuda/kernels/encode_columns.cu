#include "encode_columns.h"
#include "encode_value.h"
#include "kernels/layout.h"
#include "ordered_sum.h"

namespace torchext::cuda {
namespace {

using cpu::EncodeMode;
constexpr int64_t kChunk = cpu::kEncodeChunk;
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

template <EncodeMode kMode>
struct Encode {
  using Params = EncodeParams;
  static constexpr int kThreads = 128;
  static constexpr bool kTwice = kMode == EncodeMode::twice;

  TX_DEVICE static void add_moments(double* sum, const EncodedValue& e, double w) {
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
        const double y = weight_of(p, row) * p.y[row * p.outputs + o];
        const double q = decoded_q[k];
        const double decoded = kTwice ? 0.5 * (q + static_cast<double>(q2[k])) : q;
        exact = std::fma(static_cast<double>(a[k]), y, exact);
        error = std::fma(decoded - a[k], y, error);
      }
      exact = join_lanes(exact, t);
      error = join_lanes(error, t);
      if (!writes) continue;
      to[0] = (first ? 0.0 : to[0]) + exact;
      to[p.cols] = (first ? 0.0 : to[p.cols]) + error;
      if (first) to[2 * p.cols] = to[3 * p.cols] = 0.0;  // of the anchor
    }
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Key key = data_key(p);
    const int64_t size = encode_sums(p.outputs, p.cols);
    for (int64_t at = t.index() / 32; at < GroupOfChunk::count(p); at += t.count() / 32) {
      const GroupOfChunk g(p, at, t.lane());
      const ColumnSearch search(p, g.col);
      const float least = p.bounds != nullptr ? p.bounds[2 * g.col] : -INFINITY;
      const float most = p.bounds != nullptr ? p.bounds[2 * g.col + 1] : INFINITY;
      double moments[cpu::kMoments] = {};
      int64_t clipped = 0;
      double* const to = p.chunk_sums + g.chunk * size + g.col;
      for (int64_t tile = g.begin; tile < g.end; tile += kTileRows) {
        double sum[cpu::kMoments] = {};
        CodeBytes bytes;
        float a[kRowsALane], q[kRowsALane], q2[kRowsALane];
        TX_UNROLL
        for (int k = 0; k < kRowsALane; ++k) {
          const int in = k * kLanes + g.row;
          const int64_t row = tile + in;
          a[k] = q[k] = q2[k] = 0.0f;
          if (row >= g.end || !g.real) continue;
          const EncodedValue e = encode_value<kMode>(p, search, key, row, g.col);
          clipped += e.a < least || e.a > most ? 1 : 0;
          bytes.put(p.planes, in, e.code);
          add_moments(sum, e, weight_of(p, row));
          a[k] = e.a;
          q[k] = e.q;
          q2[k] = e.q2;
        }
        bytes.store(p.codes + tile / kTileRows * layout_unit_bytes(Layout::tile4, p.cols, p.bits) +
                        field_base(Layout::tile4, kGroup * g.group, p.cols, p.bits, 0),
                    t.lane(), p.bits);
        TX_UNROLL
        for (int s = 0; s < cpu::kMoments; ++s) moments[s] += join_lanes(sum[s], t);
        add_targets(p, t, tile, g.end, a, q, q2, tile == g.begin, g.writes,
                    to + cpu::kMoments * p.cols);
      }
      TX_UNROLL
      for (int s = 0; s < cpu::kMoments; ++s) {
        if (g.writes) to[s * p.cols] = moments[s];
      }
      if (clipped > 0) t.add(p.clipped + g.col, clipped);
    }
  }
};

/// Sums of w y per output and of w, with an anchor those of the losses and slopes too; each chunk
/// in row order by one thread.
struct EncodeTotals {
  using Params = EncodeParams;
  static constexpr int kThreads = 64;

  /// What row `row` adds to total number `kind` of an output; of `o` = outputs to that of all.
  TX_DEVICE static double term(const Params& p, int64_t kind, int64_t o, int64_t row) {
    if (kind == 0) {
      const double w = weight_of(p, row);
      return o < p.outputs ? w * p.y[row * p.outputs + o] : w;
    }
    if (o == p.outputs) return 0.0;
    const double* const slope = p.slopes + kSlopes * o * p.rows + row;
    if (kind == 1) return slope[kRowLoss * p.rows];
    if (kind == 2) return slope[kExactSlope * p.rows];
    return slope[kFirstSlope * p.rows] + slope[kSecondSlope * p.rows];
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t width = p.outputs + 1, size = encode_totals(p);
    for (int64_t i = t.index(); i < size * encode_chunks(p.rows); i += t.count()) {
      const int64_t o = i % size % width, kind = i % size / width;
      const int64_t begin = i / size * kChunk;
      const int64_t end = begin + kChunk < p.rows ? begin + kChunk : p.rows;
      double sum = 0.0;
      for (int64_t row = begin; row < end; ++row) sum += term(p, kind, o, row);
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
  const int64_t chunks = encode_chunks(p.rows), totals = encode_totals(p);
  cudaError_t status = launch_codes(p, chunks, stream);
  if (status == cudaSuccess && p.x0 != nullptr) status = launch_anchor(p, stream);
  if (status != cudaSuccess) return status;
  status = launch_ordered_sum(
      {p.chunk_sums, p.sums, nullptr, chunks, encode_sums(p.outputs, p.cols)}, stream);
  if (status != cudaSuccess) return status;
  status = launch_over<EncodeTotals>(p, chunks * totals, stream);
  if (status != cudaSuccess) return status;
  return launch_ordered_sum({p.chunk_totals, p.totals, nullptr, chunks, totals}, stream);
}

}  // namespace torchext::cuda
