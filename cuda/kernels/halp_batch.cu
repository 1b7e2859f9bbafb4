// An epoch of HALP over mini-batches on CUDA: the integers of the CPU, in two launches a step
// (inner_batch.cuh).
#include <type_traits>

#include "byte_permute.h"
#include "halp_scale.h"
#include "inner_batch.cuh"
#include "vector_io.h"

namespace torchext::cuda {
namespace {

constexpr int64_t kSliceRows = 128;  // rows of a block of columns

struct HalpBatch : BatchLaunch<cpu::HalpEpoch> {
  HalpScale scale;
  cpu::HalpRanges ranges;
  int64_t padded;   // rows of a batch, a multiple of 4; those beyond have gamma 0
  int16_t* gammas;  // [outputs, padded]
  int32_t* sums;    // of gamma x, [outputs, column_groups, 64]; 0 between the steps
  int32_t* drift;   // h, as many
};

/// Products of adjacent codes. X, Z: types of rows and displacement.
template <class X, class Z>
TX_DEVICE int64_t products(const X* x_at, const Z* z_at) {
  constexpr int kUnit = 16 / sizeof(X);
  X x[kUnit];
  Z z[kUnit];
  load<kUnit>(x_at, x);
  load<kUnit>(z_at, z);
  if constexpr (sizeof(Z) == 1) {
    uint32_t a[4], b[4];
    std::memcpy(a, x, sizeof a);
    std::memcpy(b, z, sizeof b);
    return dp4a(a[3], b[3], dp4a(a[2], b[2], dp4a(a[1], b[1], dp4a(a[0], b[0], 0))));
  }
  std::conditional_t<sizeof(X) == 2, int64_t, int32_t> sum = 0;
  TX_UNROLL
  for (int k = 0; k < kUnit; ++k) sum += x[k] * z[k];
  return sum;
}

template <class X, class Z>
struct HalpRow {
  using Params = HalpBatch;

  /// How far the score of a row has moved.
  TX_DEVICE static float score(const Params& p, const Thread& t, int64_t row, int o) {
    constexpr int kUnit = 16 / sizeof(X);
    const int64_t pitch = p.e.loop.pitch;
    const X* const x = static_cast<const X*>(p.e.loop.x) + row * pitch;
    const Z* const z = static_cast<const Z*>(p.e.z) + o * pitch;
    int64_t dot = 0;
    TX_UNROLL_BY(4)
    for (int64_t j = t.lane() * kUnit; j < pitch; j += 32 * kUnit) dot += products(x + j, z + j);
    dot = warp_sum(dot, t);
    if (p.e.loop.intercept) dot += int64_t{p.ranges.data} * p.e.z_intercept[o];
    return static_cast<float>(p.e.dx * p.e.dz * static_cast<double>(dot));
  }

  TX_DEVICE static void keep(const Params& p, const Thread& t, Key key, int64_t i, int o,
                             float change) {
    const int64_t element = (p.step * p.e.loop.batch + i) * p.e.loop.outputs + o;
    const float u = halp_uniform(p.e, key, static_cast<uint64_t>(element), cpu::kCoefficient);
    int64_t clips = 0;
    const int32_t gamma = cpu::halp_coefficient(p.scale.factor * change, u, p.ranges.gamma, &clips);
    p.gammas[o * p.padded + i] = static_cast<int16_t>(gamma);
    if (p.e.gammas != nullptr) p.e.gammas[element] = gamma;
    if (clips != 0) t.add(p.e.clips + 1, clips);
  }
};

template <class T>
struct alignas(4 * sizeof(T)) Four {
  T at[4];
};

/// Sums of gamma x over rows, four columns of a thread.
template <class X, class Z>
struct ColumnSums {
  int32_t low[4] = {}, high[4] = {};  // high: of the second byte of gamma

  TX_DEVICE void add(const Four<X> (&x)[4], const Four<int16_t>& gammas) {
    if constexpr (sizeof(X) == 1) {
      uint32_t rows[4], columns[4], g[2];
      std::memcpy(rows, x, sizeof rows);
      std::memcpy(g, &gammas, sizeof g);
      turn(rows, columns);
      const uint32_t first = byte_permute(g[0], g[1], 0x6420);
      const uint32_t second = byte_permute(g[0], g[1], 0x7531);
      TX_UNROLL
      for (int c = 0; c < 4; ++c) {
        if constexpr (sizeof(Z) == 2) {
          low[c] = dp4a_unsigned(first, columns[c], low[c]);
          high[c] = dp4a(second, columns[c], high[c]);
        } else {
          low[c] = dp4a(first, columns[c], low[c]);
        }
      }
    } else {
      TX_UNROLL
      for (int r = 0; r < 4; ++r) {
        TX_UNROLL
        for (int c = 0; c < 4; ++c) low[c] += gammas.at[r] * x[r].at[c];
      }
    }
  }
  /// Unsigned: a shift of a negative number would not be defined.
  TX_DEVICE int32_t total(int c) const {
    return static_cast<int32_t>(static_cast<uint32_t>(low[c]) +
                                (static_cast<uint32_t>(high[c]) << 8));
  }
};

/// Sixteen threads take the columns, four each; sixteen teams of them take four rows in turn. The
/// first 64 threads of the last block move a column each. R: a lane of noise.
template <class X, class Z, class R>
struct HalpColumns {
  using Params = HalpBatch;
  static constexpr int kThreads = 256, kWarps = kThreads / 32, kShift = 8 * sizeof(R);
  static constexpr size_t kShared = sizeof(int32_t) * (kWarps * kColumns + 1);  // sums, a flag

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ColumnBlock at = column_block(p.e.loop, t);
    auto* const shared = t.shared<int32_t>();
    int32_t sum = slice_sum(p, t, at, shared);
    if (t.rows() > 1) {
      int32_t* const total = p.sums + t.block() * kColumns + t.thread();
      if (t.thread() < kColumns) t.add(total, sum);
      if (!last_to_arrive(t, p.done + t.block(), static_cast<uint32_t>(t.rows()),
                          shared + kWarps * kColumns))
        return;
      if (t.thread() < kColumns) {
        sum = load_past(total);
        *total = 0;
      }
    }
    if (t.thread() >= kColumns) return;
    int64_t moved = 0, drift = 0;  // clipped
    if (!at.intercept || t.thread() == 0) move(p, t, at, sum, &moved, &drift);
    moved = warp_sum(moved, t);
    drift = warp_sum(drift, t);
    if (t.lane() == 0 && moved != 0) t.add(p.e.clips, moved);
    if (t.lane() == 0 && drift != 0) t.add(p.e.clips + 2, drift);
  }

 private:
  /// What the rows of this block add to column first + thread, for the first 64 threads.
  TX_DEVICE static int32_t slice_sum(const Params& p, const Thread& t, const ColumnBlock& at,
                                     int32_t* shared) {
    const int column = t.thread() % 16 * 4;
    const X* const x = static_cast<const X*>(p.e.loop.x) + at.first + column;
    const auto one = static_cast<X>(p.ranges.data);
    const int64_t first = t.row() * kSliceRows, beyond = first + kSliceRows;
    const int64_t end = beyond < p.padded ? beyond : p.padded;
    ColumnSums<X, Z> sums;
    for (int64_t i = first + t.thread() / 16 * 4; i < end; i += kThreads / 16 * 4) {
      const Vector16 rows = *reinterpret_cast<const Vector16*>(p.rows + i);
      Four<X> codes[4];
      TX_UNROLL
      for (int r = 0; r < 4; ++r) {
        codes[r] = Four<X>{{one, one, one, one}};
        if (!at.intercept)
          codes[r] = *reinterpret_cast<const Four<X>*>(x + int64_t{rows.w[r]} * p.e.loop.pitch);
      }
      sums.add(codes, *reinterpret_cast<const Four<int16_t>*>(p.gammas + at.output * p.padded + i));
    }
    TX_UNROLL
    for (int c = 0; c < 4; ++c) {
      int32_t total = sums.total(c);
      total += t.shuffle_xor(total, 16);
      if (t.lane() < 16) shared[t.warp() * kColumns + column + c] = total;
    }
    t.sync();
    int32_t sum = 0;
    for (int w = 0; w < kWarps && t.thread() < kColumns; ++w)
      sum += shared[w * kColumns + t.thread()];
    return sum;
  }

  /// z' of one column, or of the intercept.
  TX_DEVICE static void move(const Params& p, const Thread& t, const ColumnBlock& at, int32_t sum,
                             int64_t* clips, int64_t* drift_clips) {
    const Key key{p.key[0], p.key[1]};
    const int32_t e = noise(p, t, at, key) - drift(p, t, at, key, drift_clips) - sum;
    if (at.intercept) {
      int32_t* const z = p.e.z_intercept + at.output;
      *z = cpu::halp_land(e, kShift, *z, p.ranges.z, clips);
      return;
    }
    Z* const z = static_cast<Z*>(p.e.z) + at.output * p.e.loop.pitch + at.first + t.thread();
    const int32_t decay = decay_of(p.e, p.scale.decay, key, p.step);
    *z = static_cast<Z>(cpu::halp_land(e - decay * *z, kShift, *z, p.ranges.z, clips));
  }

  TX_DEVICE static int32_t noise(const Params& p, const Thread& t, const ColumnBlock& at, Key key) {
    if (p.e.nearest) return 1 << (kShift - 1);
    constexpr int kLanes = 4 / sizeof(R);  // of a word
    const int64_t output = p.step * p.e.loop.outputs + at.output;
    const auto element = static_cast<uint64_t>(output * 2 * kShift + t.thread() / kLanes);
    const uint32_t word = draw_word(key, element, p.e.loop.stream, cpu::kUpdateNoise);
    return static_cast<R>(word >> (kShift * (t.thread() % kLanes)));
  }

  /// h, rounded afresh where it is due.
  TX_DEVICE static int32_t drift(const Params& p, const Thread& t, const ColumnBlock& at, Key key,
                                 int64_t* clips) {
    const int64_t place = t.block() * kColumns + t.thread(), refresh = p.e.refresh;
    if (refresh > 0 ? p.step % refresh != 0 : p.step != 0) return p.drift[place];
    const int64_t round = refresh > 0 ? p.step / refresh : 0;
    const int64_t element = round * p.e.loop.outputs * stride_of(p.e.loop) + place;
    const float u = halp_uniform(p.e, key, static_cast<uint64_t>(element), cpu::kDriftNoise);
    const double target = halp_target(p.e, p.scale.grid, at.output, at.first + t.thread());
    return p.drift[place] = cpu::halp_drift(target, static_cast<double>(u),
                                            static_cast<double>(p.ranges.drift), clips);
  }
};

/// Bytes of memory at `base`, which may be null.
size_t take_memory(HalpBatch* p, void* base) {
  const cpu::InnerLoop& loop = p->e.loop;
  p->padded = (loop.batch + 3) / 4 * 4;
  Parts parts(base);
  take_shared(p, &parts, p->padded);
  parts.take(p->gammas, loop.outputs * p->padded);
  parts.take(p->sums, loop.outputs * stride_of(loop));
  parts.take(p->drift, loop.outputs * stride_of(loop));
  return parts.used();
}

template <class X, class Z, class R>
cudaError_t launch_format(const HalpBatch& p, cudaStream_t stream) noexcept {
  const cudaError_t zeroed = zero_displacement(p.e, sizeof(Z), stream);
  if (zeroed != cudaSuccess) return zeroed;
  const int64_t slices = (p.padded + kSliceRows - 1) / kSliceRows;
  return launch_steps<HalpRow<X, Z>, HalpColumns<X, Z, R>>(p, slices, stream);
}

}  // namespace

int64_t halp_batch_scratch(const cpu::HalpEpoch& e) noexcept {
  HalpBatch p{};
  p.e = e;
  return static_cast<int64_t>(take_memory(&p, nullptr));
}

cudaError_t launch_halp_batch(const HalpParams& params, cudaStream_t stream) noexcept {
  HalpBatch p{};
  const cudaError_t cached = fill_cache(params, &p, stream);
  if (cached != cudaSuccess) return cached;
  p.scale = halp_scale(p.e);
  p.ranges = cpu::halp_ranges(p.e.format, p.e.loop.batch);
  const cudaError_t zeroed = zero(params.scratch, take_memory(&p, params.scratch), stream);
  if (zeroed != cudaSuccess) return zeroed;
  switch (p.e.format) {
    case cpu::HalpFormat::z8: return launch_format<int8_t, int8_t, uint8_t>(p, stream);
    case cpu::HalpFormat::z16: return launch_format<int8_t, int16_t, uint8_t>(p, stream);
    case cpu::HalpFormat::x16: return launch_format<int16_t, int16_t, uint16_t>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace torchext::cuda
