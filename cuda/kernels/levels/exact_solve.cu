// Exact levels of one large table: the best levels among the items of a round, and what all others
// cost at least.
#include "bounds.cuh"
#include "exact.h"
#include "hist_results.cuh"
#include "kernels/levels/float_bin.h"

namespace torchext::cuda {
namespace {

constexpr int kPlanes = BlockBounds<DD, CellCosts>::kWords;  // of each way through the layers
static_assert(kPlanes >= BlockBounds<DD, LevelCosts>::kWords);
static_assert(2 * kPlanes >= Programme<DD>::kPlanes * Plane<DD>::kWords);

/// The items of the first round: all bins.
struct TakeBins {
  using Params = ExactLevels;
  static constexpr int kThreads = 512;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const HistWork& w = p.work.hist;
    const int items = w.state->not_finite != 0 ? 0 : w.state->items;
    const ExactWork::Items& to = p.work.items[0];
    for (int i = t.thread(); i < items; i += kThreads) {
      const uint32_t bin = w.bin[i];
      to.lo[i] = w.lo[i];
      to.hi[i] = w.hi[i];
      to.below[i] = w.cut[i];
      to.above[i] = w.cut[i + 1];
      to.key[i] = bin == levels::kNoBin ? 0 : w.key[bin];
      to.shift[i] = bin == levels::kNoBin ? 0 : w.shift[bin];
    }
    for (int i = t.thread(); i < p.table.positions(); i += kThreads) {
      p.work.begin[i] = 0;
      p.work.end[i] = items;
    }
    if (t.thread() != 0) return;
    ExactWork::State s{};
    s.items = items;
    s.several = w.state->single == 0;
    s.centre = w.state->centre;
    s.radius = w.state->radius;
    s.largest_sum = w.state->largest_sum;
    s.all = w.cut[items];
    s.terms = items + 4.0;
    s.cut_error = w.state->cut_error;
    s.upper = HUGE_VAL;
    *p.work.state = s;
    if (items == 0) return;
    to.below[items] = w.cut[items];
    to.lo[items] = w.hi[items - 1];
  }
};

/// The best levels among the items, at the lower ends of bins, or the best borders there; in
/// double-double where plain double decides too little, and when all items are single values: then
/// these are the optimum.
template <class N, template <class> class Entries>
struct FindLevels {
  using Params = ExactLevels;
  static constexpr bool kPrecise = Plane<N>::kWords > 1, kEnds = Entries<N>::kStochastic;
  static constexpr int kThreads = (kPrecise ? 640 : 1024) / (kEnds ? 1 : 2);
  static constexpr int kMinBlocks = 1;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ExactWork& w = p.work;
    const int items = w.state->items, done = w.state->done;
    const bool single = w.state->several == 0, precise = single || w.state->precise != 0;
    const bool all = w.state->dropped == 0 && items <= p.table.levels;
    const double upper = w.state->upper, lower = w.state->lower;
    t.sync();  // before the first thread changes any of them
    if (done != 0 || precise != kPrecise) return;
    if (items == 0) {
      write_nothing(p.table, t);
      if (t.thread() == 0) w.state->done = 1;
      return;
    }
    if (all && !single) {  // any of their values may be a level
      if (t.thread() == 0) w.state->whole = 1;
      return;
    }
    const ExactWork::Items& from = w.items[p.round % 2];
    TableItems m{};
    m.lo = from.lo;
    m.hi = from.lo + 1;  // what a cell that ends before an item has is no larger than that
    m.cut = from.below;
    m.scratch = t.shared<double>();
    m.capacity = kMostItems;
    m.items = items;
    m.centre = w.state->centre;
    m.cut_error = w.state->cut_error;
    int found = all ? items : p.table.levels;
    const int count = found + (kEnds ? 0 : 1);
    double cost = 0, proved = 0;
    double* chosen = w.planes + kMostItems;
    bool direct = false;
    if (all) {
      for (int i = t.thread(); i < count; i += kThreads) w.path[i] = i;
      t.sync();
    } else {
      using Solver = Programme<N, Entries>;
      Solver programme = Solver::at(w.planes, w.arg, kMostItems);
      proved = solve_items(t, m, &programme, count, w.args, w.path,
                           [&w](int layer) { return Span{w.begin[layer], w.end[layer]}; });
      if (proved > kUnreachable / 2) return;  // levels that share a bin are not tried
      cost = cost_of_path<kEnds>(t, m, w.path, count, w.terms);
      direct = single && p.round == 0 && !levels::is_accurate(cost, m.cut_error, count);
      if (direct) cost = cost_by_value<kEnds>(t, m, w.path, count, w.planes, &found);
    }
    if (all) {
      levels_of_path<true>(t, m, w.path, found, chosen);
    } else if (!direct) {
      levels_of_path<kEnds>(t, m, w.path, count, chosen);
    }
    t.sync();
    levels::Bound bound{0, true};
    if (!all) bound = levels::settled(cost, single ? proved : lower);
    const auto level_of = [chosen](int i) { return chosen[i]; };
    if (single || cost < upper) write_levels(p.table, t, level_of, found, cost, bound);
    if (t.thread() != 0) return;
    w.state->done = single;
    if (cost < upper) w.state->upper = cost;
  }
};

/// Lower bounds of the ways to all items of all layers, by one block, and from them, by another.
/// In double-double where plain double would decide too little.
template <class N, template <class> class Costs>
struct BoundItems {
  using Params = ExactLevels;
  static constexpr int kThreads = Plane<N>::kWords > 1 ? 256 : 512;
  static constexpr int kMinBlocks = 1;
  static constexpr bool kPrecise = Plane<N>::kWords > 1;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ExactWork& w = p.work;
    const ExactWork::State& s = *w.state;
    if (s.done != 0 || s.whole != 0) return;
    if (kPrecise ? !s.needs_precision() : s.precise != 0) return;
    const ExactWork::Items& from = w.items[p.round % 2];
    const Blocks blocks{from.lo, from.hi,  from.below, from.above,
                        s.items, s.centre, s.radius,   s.cut_error};
    const auto way = static_cast<int>(t.block());
    BlockBounds<N, Costs> bounds(blocks, way == 1,
                                 w.planes + static_cast<size_t>(way) * kPlanes * kMostItems,
                                 kMostItems, w.arg + static_cast<size_t>(way) * kMostItems);
    double* to = way == 1 ? w.behind : w.ahead;
    const double bound = bounds.sweep(
        t, t.shared<double>(), p.table.positions(),
        [&w](int layer) { return Span{w.begin[layer], w.end[layer]}; },
        [&](int layer, int r) {
          const uint16_t* best = w.args + static_cast<size_t>(layer - 2) * kMostItems;
          return Costs<N>::rise(blocks, layer == 1 ? 0 : best[r], r);
        },
        [to](int layer, int item, double least) {
          to[static_cast<size_t>(layer - 1) * kMostItems + item] = least;
        });
    if (t.thread() != 0) return;
    ExactWork::Sweeps& sweeps = w.state->sweeps[kPrecise ? 1 : 0];
    sweeps.slack[way] = bounds.slack;
    if (way == 0) sweeps.bound = bound;
  }
};

/// A round halves all bins at least. Those of bit patterns have up to 2^16 keys; of sorted values
/// there are kHistBins at first, unless there are fewer values.
int rounds_of(const ExactLevels& p) {
  if (!p.is_sorted()) return 16;
  int rounds = 0;
  while (kHistBins << rounds < p.table.n) ++rounds;
  return rounds;
}

template <template <class> class Entries, template <class> class Costs>
cudaError_t launch_round(const ExactLevels& p, bool last, cudaStream_t stream) noexcept {
  const Launch both_ways{2, 1, kOneBlock.shared};
  cudaError_t status = launch<FindLevels<double, Entries>>(p, kOneBlock, stream);
  if (status == cudaSuccess) status = launch<FindLevels<DD, Entries>>(p, kOneBlock, stream);
  if (status != cudaSuccess || last) return status;
  status = launch<BoundItems<double, Costs>>(p, both_ways, stream);
  if (status == cudaSuccess) status = launch<BoundItems<DD, Costs>>(p, both_ways, stream);
  return status == cudaSuccess ? launch_split_items(p, stream) : status;
}

}  // namespace

ExactWork exact_work(unsigned char* memory, int32_t positions, bool sorted) noexcept {
  ExactWork w{};
  if (!sorted) w.hist = hist_work(memory, 2);
  w.bytes = w.hist.bytes;
  const auto take = [&](auto** array, int64_t count) {
    w.bytes += place_array(memory, w.bytes, count, array);
  };
  const int64_t between = positions > 2 ? positions - 2 : 0;
  if (sorted) take(&w.part, kMostItems);
  take(&w.state, 1);
  for (ExactWork::Items& items : w.items) {
    take(&items.lo, kMostItems);
    take(&items.hi, kMostItems);
    take(&items.below, kMostItems + 1);
    take(&items.above, kMostItems);
    take(&items.key, kMostItems);
    take(&items.shift, kMostItems);
  }
  take(&w.begin, positions);
  take(&w.end, positions);
  take(&w.split, kMostItems);
  take(&w.first, kMostItems + 1);
  take(&w.ahead, between * kMostItems);
  take(&w.behind, between * kMostItems);
  take(&w.wide.key, kMostItems);
  take(&w.wide.shift, kMostItems);
  take(&w.wide.fine, kMostItems);
  take(&w.wide.base, kMostItems);
  take(&w.planes, 2 * int64_t{kPlanes} * kMostItems);
  take(&w.arg, 2 * int64_t{kMostItems});
  take(&w.args, (positions > 3 ? positions - 3 : 0) * int64_t{kMostItems});
  take(&w.path, positions);
  take(&w.terms, positions);
  return w;
}

cudaError_t launch_exact_levels(ExactLevels p, cudaStream_t stream) noexcept {
  cudaError_t status =
      p.is_sorted() ? launch_sorted_items(p, stream) : launch_hist_items(p.table, stream);
  if (status == cudaSuccess && !p.is_sorted()) status = launch<TakeBins>(p, kOneBlock, stream);
  const auto round =
      p.table.stochastic ? launch_round<Ends, LevelCosts> : launch_round<Cells, CellCosts>;
  const int rounds = rounds_of(p);
  for (p.round = 0; p.round <= rounds && status == cudaSuccess; ++p.round)
    status = round(p, p.round == rounds, stream);
  return status == cudaSuccess && p.is_sorted() ? launch_sorted_results(p, stream) : status;
}

}  // namespace torchext::cuda
