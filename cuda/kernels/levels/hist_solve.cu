// Levels from bins: one block of threads, from the sums of the bins to the proof.
#include "bounds.cuh"
#include "hist_results.cuh"
#include "kernels/levels/float_bin.h"

namespace torchext::cuda {
namespace {

using levels::kCoarseBins;

constexpr int kPlanes = BlockBounds<DD, CellCosts>::kWords;
static_assert(kPlanes >= Programme<DD>::kPlanes * Plane<DD>::kWords);
static_assert(kPlanes >= BlockBounds<double, LevelCosts>::kWords);

/// The items of the bins: lo, hi, and the sums below each.
struct MakeItems {
  using Params = HistLevels;
  static constexpr int kThreads = 512;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const HistWork& w = p.work;
    if (w.state->not_finite != 0) return;
    auto* scratch = t.shared<double>();
    const double least =
        levels::value_of(static_cast<uint32_t>((int64_t{1} << 32) - w.state->below));
    const double most = levels::value_of(static_cast<uint32_t>(w.state->above - 1));
    const int bins = w.state->bins, chunk = (bins + kThreads - 1) / kThreads;
    const int begin = t.thread() * chunk, end = begin + chunk < bins ? begin + chunk : bins;
    int found = 0;
    for (int b = begin; b < end; ++b) found += w.held[b] != 0;
    int items, at = block_scan(t, scratch, found, &items);
    // The smallest and the largest value are items of their own if they are to be levels.
    int own_ends = 0;
    for (int b = begin; b < end; ++b) {
      if (w.held[b] == 0) continue;
      const levels::FloatBin bin = bin_at(w, b, least, most);
      const bool wide = bin.lo != bin.hi;
      own_ends |= (at == 0 && wide ? 1 : 0) | (at == items - 1 && wide ? 2 : 0);
      ++at;
    }
    if (!p.stochastic) own_ends = 0;
    own_ends = block_reduce(t, scratch, own_ends, [](int a, int b) { return a | b; });
    const int before = own_ends & 1, after = own_ends >> 1;
    at -= found;
    int several = 0;
    for (int b = begin; b < end; ++b) {
      if (w.held[b] == 0) continue;
      const levels::FloatBin bin = bin_at(w, b, least, most);
      w.lo[before + at] = bin.lo;
      w.hi[before + at] = bin.hi;
      w.bin[before + at] = static_cast<uint32_t>(b);
      w.planes[at++] = bin.above(least);
      several |= bin.lo != bin.hi;
    }
    const int all = before + items + after;
    if (t.thread() == 0) {
      if (before != 0) w.lo[0] = w.hi[0] = least;
      if (after != 0) w.lo[all - 1] = w.hi[all - 1] = most;
      if (before != 0) w.bin[0] = levels::kNoBin;
      if (after != 0) w.bin[all - 1] = levels::kNoBin;
    }
    several = block_reduce(t, scratch, several, [](int a, int b) { return a | b; });
    const double centre = levels::round_centre(
        least + ordered_sum(t, scratch, w.planes, items) / static_cast<double>(p.n), least, most);
    sum_bins(w, centre, begin, end, before + at - found, least, most);
    if (t.thread() == 0 && before != 0) w.cut[0] = Cut{};
    t.sync();
    Cut* cut = w.cut + before;
    running_cuts(t, cut, items);
    if (t.thread() == 0 && after != 0) cut[items + 1] = cut[items];
    t.sync();
    double largest = 0;
    for (int i = t.thread(); i <= all; i += kThreads) {
      const double s = std::fabs(w.cut[i].s.h);
      largest = largest < s ? s : largest;
    }
    largest = block_max(t, scratch, largest);
    if (t.thread() != 0) return;
    HistWork::State& s = *w.state;
    s.items = all;
    s.single = several == 0;
    s.centre = centre;
    s.largest_sum = largest;
    const double low = std::fabs(least - centre), high = std::fabs(most - centre);
    s.radius = low < high ? high : low;
    s.cut_error =
        levels::error_of_cuts(w.cut[all], s.radius, largest, static_cast<double>(all) + 4);
  }

 private:
  TX_DEVICE static levels::FloatBin bin_at(const HistWork& w, int b, double least, double most) {
    return levels::float_bin(w.key[b], w.shift[b], w.held[b], w.first[b], w.second[b], least, most);
  }

  TX_DEVICE static void sum_bins(const HistWork& w, double centre, int begin, int end, int at,
                                 double least, double most) {
    for (int b = begin; b < end; ++b)
      if (w.held[b] != 0) w.cut[at++] = bin_at(w, b, least, most).sums(centre);
  }

  /// Terms added one after another by the first warp; the sum in all threads.
  TX_DEVICE static double ordered_sum(const Thread& t, double* scratch, const double* terms,
                                      int n) {
    t.sync();  // nobody reads the scratch of an earlier call any more
    if (t.warp() == 0) {
      double sum = 0;
      for (int base = 0; base < n; base += 32) {
        const double own = base + t.lane() < n ? terms[base + t.lane()] : 0.0;
        for (int lane = 0; lane < 32; ++lane) sum += t.shuffle(own, lane);
      }
      if (t.lane() == 0) scratch[0] = sum;
    }
    t.sync();
    const double sum = scratch[0];
    t.sync();
    return sum;
  }
};

/// The best levels that the items allow.
template <template <class> class Entries>
struct SolveBins {
  using Params = HistLevels;
  static constexpr bool kStochastic = Entries<DD>::kStochastic;
  static constexpr int kThreads = kStochastic ? 640 : 384;  // quotients take more registers
  static constexpr int kMinBlocks = 1;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const HistWork& w = p.work;
    if (w.state->not_finite != 0) {
      write_nothing(p, t);
      return;
    }
    TableItems m{};
    m.lo = w.lo;
    m.hi = w.hi;
    m.cut = w.cut;
    m.scratch = t.shared<double>();
    m.capacity = kMostItems;
    m.items = w.state->items;
    m.centre = w.state->centre;
    m.cut_error = w.state->cut_error;
    const bool single = w.state->single != 0, all = m.items <= p.levels;
    int found = all ? m.items : p.levels;
    const int count = found + (kStochastic ? 0 : 1);  // positions of a path
    double cost = 0, proved = 0;
    if (all) {
      for (int i = t.thread(); i < count; i += kThreads) w.path[i] = i;
      t.sync();
    } else {
      using Solver = Programme<DD, Entries>;
      Solver programme = Solver::at(w.planes, w.arg, kMostItems);
      proved = solve_items(t, m, &programme, count, w.args, w.path);
    }
    if (!all || !single) cost = cost_of_path<kStochastic>(t, m, w.path, count, w.terms);
    double* chosen = w.planes + kMostItems;
    if (!all && single && !levels::is_accurate(cost, m.cut_error, count)) {
      cost = cost_by_value<kStochastic>(t, m, w.path, count, w.planes, &found);
    } else {
      levels_of_path<kStochastic>(t, m, w.path, count, chosen);
      t.sync();
    }
    // Where levels may lie inside bins, the proof is another kernel's.
    levels::Bound bound{0, single};
    if (single && !all) bound = levels::settled(cost, proved);
    write_levels(p, t, [chosen](int i) { return chosen[i]; }, found, cost, bound);
    if (t.thread() == 0) w.state->cost = cost;
  }
};

/// A lower bound of the cost of any levels, those inside bins too; or of borders anywhere in bins.
template <class N, template <class> class Costs>
struct BoundBins {
  using Params = HistLevels;
  static constexpr int kThreads = Plane<N>::kWords > 1 ? 256 : 640;
  static constexpr int kMinBlocks = 1;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const HistWork& w = p.work;
    const HistWork::State& s = *w.state;
    if (s.not_finite != 0 || s.single != 0 || s.items <= p.levels) return;
    const Blocks blocks{w.lo, w.hi, w.cut, w.cut + 1, s.items, s.centre, s.radius, s.cut_error};
    BlockBounds<N, Costs> bounds(blocks, false, w.planes, kMostItems, w.arg);
    const double value = bounds.sweep(
        t, t.shared<double>(), p.positions(), [&blocks](int) { return Span{0, blocks.items}; },
        [&](int layer, int r) {
          const uint16_t* from = w.args + static_cast<size_t>(layer - 2) * kMostItems;
          return Costs<N>::rise(blocks, layer == 1 ? 0 : from[r], r);
        },
        [](int, int, double) {});
    if (t.thread() != 0) return;
    write_bound(p, s.cost,
                levels::settled(s.cost, value - bounds.slack - p.levels * 0x1p-50 * s.cost));
  }
};

}  // namespace

HistWork hist_work(unsigned char* memory, int32_t levels) noexcept {
  HistWork w{};
  const auto take = [&](auto** array, int64_t count) {
    w.bytes += place_array(memory, w.bytes, count, array);
  };
  take(&w.state, 1);
  take(&w.count, kCoarseBins);
  for (uint64_t** sums : {&w.held, &w.first, &w.second}) take(sums, kCoarseBins);
  w.zeroed = w.bytes;
  take(&w.map, kCoarseBins);
  take(&w.key, kCoarseBins);
  take(&w.shift, kCoarseBins);
  take(&w.bin, kMostItems);
  take(&w.lo, kMostItems);
  take(&w.hi, kMostItems);
  take(&w.planes, int64_t{kPlanes} * kMostItems);
  take(&w.cut, kMostItems + 1);
  const int64_t path = levels + 1;  // positions, if they are the borders of cells
  take(&w.terms, path);
  take(&w.arg, kMostItems);
  take(&w.args, kMostItems * (path > 3 ? path - 3 : 0));
  take(&w.path, path);
  return w;
}

cudaError_t launch_hist_items(const HistLevels& p, cudaStream_t stream) noexcept {
  return launch<MakeItems>(p, kOneBlock, stream);
}

cudaError_t launch_hist_levels(const HistLevels& p, cudaStream_t stream) noexcept {
  cudaError_t status = launch_hist_items(p, stream);
  if (status != cudaSuccess) return status;
  if (!p.stochastic) {
    status = launch<SolveBins<Cells>>(p, kOneBlock, stream);
    return status != cudaSuccess ? status : launch<BoundBins<DD, CellCosts>>(p, kOneBlock, stream);
  }
  status = launch<SolveBins<Ends>>(p, kOneBlock, stream);
  return status != cudaSuccess ? status
                               : launch<BoundBins<double, LevelCosts>>(p, kOneBlock, stream);
}

}  // namespace torchext::cuda
