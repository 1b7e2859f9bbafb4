// From values in any order to distinct ones in ascending order, around a sort that is torch's.
#include "block.cuh"
#include "finite.cuh"
#include "hist_results.cuh"
#include "kernels/levels/interval.h"
#include "kernels/levels/scaling.h"
#include "kernels/number_bits.h"
#include "sorted.h"

namespace torchext::cuda {
namespace {

TX_DEVICE int64_t bits_of(double v) { return static_cast<int64_t>(double_bits(v)); }
TX_DEVICE double from_bits(int64_t bits) { return double_from_bits(static_cast<uint64_t>(bits)); }

/// Magnitudes, which choose powers of two, and whether there are levels at all.
struct MeasureValues {
  using Params = SortedValues;
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    double largest = 0, heaviest = 0;
    int32_t bad = 0, present = 0;
    for (int64_t i = t.index(); i < p.n; i += t.count()) {
      const double value = std::fabs(p.given(i)), w = p.weight != nullptr ? p.weight[i] : 1.0;
      bad |= !is_finite(value) || !(w >= 0) || !is_finite(w);
      if (!(w > 0)) continue;
      ++present;
      largest = largest < value ? value : largest;
      heaviest = heaviest < w ? w : heaviest;
    }
    auto* scratch = t.shared<double>();
    largest = block_max(t, scratch, largest);
    heaviest = block_max(t, scratch, heaviest);
    bad = block_sum(t, scratch, bad);
    present = block_sum(t, scratch, present);
    if (t.thread() != 0) return;
    t.most(&p.state->largest, bits_of(largest));
    t.most(&p.state->heaviest, bits_of(heaviest));
    if (bad != 0) t.most(&p.state->bad, 1);
    t.add(&p.state->present, present);
  }
};

/// Powers of two as in items.cuh.
TX_DEVICE int power_of(const SortedValues::State& s) {
  return levels::scaling_exponent(from_bits(s.largest));
}
TX_DEVICE int weight_power_of(const SortedValues& p) {
  return p.weight != nullptr ? levels::weight_exponent(from_bits(p.state->heaviest)) : 0;
}

struct ScaleValues {
  using Params = SortedValues;
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    if (p.state->bad != 0) return;  // whatever is sorted then
    const int power = power_of(*p.state);
    for (int64_t i = t.index(); i < p.n; i += t.count()) {
      const double value = p.given(i);
      const bool absent = p.weight != nullptr && !(p.weight[i] > 0);
      p.scaled[i] = absent ? HUGE_VAL : power != 0 ? std::ldexp(value, -power) + 0.0 : value;
    }
  }
};

/// The consecutive values of a thread in a chunk.
struct Few {
  int64_t begin, end;

  TX_DEVICE static Few of(const Thread& t, int64_t chunk, int64_t present) {
    const int64_t each = kSortedChunk / t.threads();
    const int64_t begin = chunk * kSortedChunk + t.thread() * each, end = begin + each;
    return {begin, end < present ? end : present};
  }
};

TX_DEVICE bool is_head(const SortedValues& p, int64_t i) {
  return i == 0 || p.value[i] != p.value[i - 1];
}

struct CountHeads {
  using Params = SortedValues;
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    if (p.state->bad != 0) return;
    auto* scratch = t.shared<double>();
    const int weight_power = weight_power_of(p);
    for (int64_t c = t.block(); c < p.chunks(); c += t.blocks()) {
      const Few own = Few::of(t, c, p.state->present);
      int32_t heads = 0;
      double total = 0, sum = 0;
      for (int64_t i = own.begin; i < own.end; ++i) {
        double w = 1;
        if (p.heavy != nullptr) {
          w = std::ldexp(p.weight[p.place[i]], -weight_power);
          p.heavy[i] = w;
        }
        heads += is_head(p, i);
        total += w;
        sum += w * (p.value[i] - p.value[0]);
      }
      // A fixed order, if not that of the values: the centre is anywhere near the mean.
      const auto plus = [](double a, double b) { return a + b; };
      heads = block_sum(t, scratch, heads);
      total = block_reduce(t, scratch, total, plus);
      sum = block_reduce(t, scratch, sum, plus);
      if (t.thread() == 0) p.chunk[c] = {heads, total, sum};
    }
  }
};

struct JoinChunks {
  using Params = SortedValues;
  static constexpr int kThreads = 1024;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    SortedValues::State& s = *p.state;
    if (s.bad != 0 || s.present == 0) return;  // no distinct values
    auto* scratch = t.shared<double>();
    const int64_t chunks = p.chunks(), each = (chunks + kThreads - 1) / kThreads;
    const int64_t begin = t.thread() * each;
    const int64_t end = begin + each < chunks ? begin + each : chunks;
    int32_t heads = 0, distinct;
    double total = 0, sum = 0;
    for (int64_t c = begin; c < end; ++c) {
      heads += static_cast<int32_t>(p.chunk[c].heads);
      total += p.chunk[c].total;
      sum += p.chunk[c].sum;
    }
    int64_t before = block_scan(t, scratch, heads, &distinct);
    for (int64_t c = begin; c < end; ++c) {
      const int64_t own = p.chunk[c].heads;
      p.chunk[c].heads = before;
      before += own;
    }
    const auto plus = [](double a, double b) { return a + b; };
    total = block_reduce(t, scratch, total, plus);
    sum = block_reduce(t, scratch, sum, plus);
    if (t.thread() != 0) return;
    s.power = power_of(s);
    s.weight_power = weight_power_of(p);
    if (!is_finite(std::ldexp(total, s.weight_power))) return;
    s.distinct = distinct;
    s.centre = levels::round_centre(p.value[0] + sum / total, p.value[0], p.value[s.present - 1]);
    p.start[distinct] = static_cast<uint32_t>(s.present);
  }
};

struct WriteStarts {
  using Params = SortedValues;
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    if (p.state->distinct == 0) return;
    auto* scratch = t.shared<double>();
    for (int64_t c = t.block(); c < p.chunks(); c += t.blocks()) {
      const Few own = Few::of(t, c, p.state->present);
      int32_t heads = 0, all;
      for (int64_t i = own.begin; i < own.end; ++i) heads += is_head(p, i);
      int64_t at = p.chunk[c].heads + block_scan(t, scratch, heads, &all);
      for (int64_t i = own.begin; i < own.end; ++i)
        if (is_head(p, i)) p.start[at++] = static_cast<uint32_t>(i);
    }
  }
};

constexpr int64_t kMostBlocks = 4096;

}  // namespace

int64_t sorted_work(unsigned char* memory, SortedValues* p) noexcept {
  int64_t bytes = 0;
  const auto take = [&](auto** array, int64_t count) {
    bytes += place_array(memory, bytes, count, array);
  };
  take(&p->state, 1);
  if (p->weight != nullptr) take(&p->heavy, p->n);
  take(&p->start, p->n + 1);
  take(&p->chunk, p->chunks());
  return bytes;
}

cudaError_t launch_scaled_values(const SortedValues& p, cudaStream_t stream) noexcept {
  cudaError_t status = zero(p.state, sizeof *p.state, stream);
  if (status != cudaSuccess) return status;
  const Launch at{blocks_for(p.n, MeasureValues::kThreads * 8, 1024), 1, kOneBlock.shared};
  status = launch<MeasureValues>(p, at, stream);
  return status != cudaSuccess ? status : launch<ScaleValues>(p, at, stream);
}

cudaError_t launch_sorted_places(const SortedValues& p, cudaStream_t stream) noexcept {
  const Launch at{blocks_for(p.chunks(), 1, kMostBlocks), 1, kOneBlock.shared};
  cudaError_t status = launch<CountHeads>(p, at, stream);
  if (status == cudaSuccess) status = launch<JoinChunks>(p, kOneBlock, stream);
  return status != cudaSuccess ? status : launch<WriteStarts>(p, at, stream);
}

}  // namespace torchext::cuda
