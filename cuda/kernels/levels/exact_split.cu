// From the items of a round to those of the next: what cannot be a level is dropped, bins that can
// hold one are split.
#include "bin_sums.cuh"
#include "exact.h"
#include "hist_results.cuh"

namespace torchext::cuda {
namespace {

using levels::Cut;

/// A thread's share of consecutive items.
struct Share {
  int begin, end;
  TX_DEVICE static Share of(const Thread& t, int items) {
    const int each = (items + t.threads() - 1) / t.threads();
    const int begin = t.thread() * each;
    return {begin < items ? begin : items, begin + each < items ? begin + each : items};
  }
};

/// What is kept, and how finely each wide item is split.
struct ChooseSplit {
  using Params = ExactLevels;
  static constexpr int kThreads = 512;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ExactWork& w = p.work;
    if (w.state->done != 0) return;
    auto* scratch = t.shared<double>();
    const int item_count = w.state->items;
    const bool whole = w.state->whole != 0, precise = w.state->needs_precision();
    const ExactWork::Sweeps sweeps = w.state->sweeps[precise ? 1 : 0];
    const double upper = w.state->upper, rounding = p.table.levels * 0x1p-50 * upper;
    const double most = upper + (sweeps.slack[0] + sweeps.slack[1] + rounding);

    for (int i = t.thread(); i < item_count; i += kThreads)
      w.split[i] = whole || i == 0 || i == item_count - 1 ? kKept : kDropped;
    t.sync();
    const int last = p.table.positions() - 1;
    for (int layer = 1 + t.warp(); !whole && layer < last; layer += kThreads / 32)
      keep(p, t, layer, most);
    t.sync();

    // As finely as the bins allow, every one alike.
    const ExactWork::Items& items = w.items[p.round % 2];
    const Share own = Share::of(t, item_count);
    int32_t wide = 0, kept = 0;
    for (int i = own.begin; i < own.end; ++i) {
      if (w.split[i] == kDropped) continue;
      const bool single = items.lo[i] == items.hi[i];
      wide += !single;
      kept += single;
    }
    const int32_t all_wide = block_sum(t, scratch, wide), all_kept = block_sum(t, scratch, kept);
    const int64_t target = 2 * all_wide < kHistBins ? kHistBins : 2 * all_wide;
    const bool fits = target + all_kept < kMostItems - 2;  // both ends are positions, too
    int bits = 1;
    while (fits && bits < 16 && bins_of(t, scratch, items, w.split, own, bits + 1) <= target)
      ++bits;
    int32_t own_bins = 0;
    for (int i = own.begin; i < own.end; ++i)
      if (is_split(items, w.split, i)) own_bins += 1 << fewer(bits, items.shift[i]);
    int32_t bins, total;
    const int32_t base = block_scan(t, scratch, own_bins, &bins);
    int32_t place = block_scan(t, scratch, wide, &total);
    if (t.thread() == 0) {
      ExactWork::State& s = *w.state;
      const double lower = sweeps.bound - (sweeps.slack[0] + rounding);
      if (!whole && s.lower < lower) s.lower = lower;
      s.precise = precise;
      s.wide = all_wide;
      s.bins = bins;
      s.finest = 1 << bits;
      if (all_wide + all_kept < item_count) s.dropped = 1;
      if (!whole) write_bound(p.table, upper, levels::settled(upper, s.lower));
      const bool close = upper < HUGE_VAL && upper - s.lower <= p.enough * upper;
      if (!fits || (p.enough > 0 && close)) s.done = 1;  // what has been proved stands
    }
    if (!fits) return;
    auto at = static_cast<uint32_t>(base);
    for (int i = own.begin; i < own.end; ++i) {
      if (!is_split(items, w.split, i)) continue;
      const int finer = fewer(bits, items.shift[i]);
      w.wide.key[place] = items.key[i];
      w.wide.shift[place] = items.shift[i];
      w.wide.fine[place] = static_cast<uint8_t>(items.shift[i] - finer);
      w.wide.base[place] = at;
      w.split[i] = place++;
      at += 1u << finer;
    }
    for (int b = t.thread(); b < bins && !p.is_sorted(); b += kThreads)
      w.hist.held[b] = w.hist.first[b] = w.hist.second[b] = 0;
  }

 private:
  TX_DEVICE static int fewer(int a, int b) { return a < b ? a : b; }

  TX_DEVICE static bool is_split(const ExactWork::Items& items, const int32_t* split, int i) {
    return split[i] != kDropped && items.lo[i] != items.hi[i];
  }

  TX_DEVICE static int64_t bins_of(const Thread& t, double* scratch, const ExactWork::Items& items,
                                   const int32_t* split, Share own, int bits) {
    int64_t bins = 0;
    for (int i = own.begin; i < own.end; ++i)
      if (is_split(items, split, i)) bins += int64_t{1} << fewer(bits, items.shift[i]);
    return block_reduce(t, scratch, bins, [](int64_t a, int64_t b) { return a + b; });
  }

  /// What may be level `layer`, by a warp: what no bound excludes. The layer's items become those
  /// from the first of them to the last.
  TX_DEVICE static void keep(const Params& p, const Thread& t, int layer, double most) {
    const ExactWork& w = p.work;
    const int begin = w.begin[layer], end = w.end[layer];
    const size_t row = static_cast<size_t>(layer - 1) * kMostItems;
    int32_t before = -end, after = 0;
    for (int i = begin + t.lane(); i < end; i += 32) {
      if (w.ahead[row + i] + w.behind[row + i] > most) continue;
      w.split[i] = kKept;
      before = before < -i ? -i : before;
      after = i + 1;
    }
    before = warp_largest(before, t);
    after = warp_largest(after, t);
    const bool none = after == 0;  // no levels that cost so little: rounding went wrong
    if (none) {
      for (int i = begin + t.lane(); i < end; i += 32) w.split[i] = kKept;
    }
    if (t.lane() != 0) return;
    w.begin[layer] = none ? begin : -before;
    w.end[layer] = none ? end : after;
  }
};

/// Sums over the bins that the wide items are split into.
struct SumSplit {
  using Params = ExactLevels;
  static constexpr int kThreads = BinSums::kThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ExactWork& w = p.work;
    if (w.state->done != 0 || w.state->wide == 0) return;
    const ExactWork::Wide& wide = w.wide;
    const int count = w.state->wide;
    const BinSums sums{w.hist.held, w.hist.first, w.hist.second};
    sums.add(t, p.table.x, p.table.n, w.state->bins, [&wide, count](uint32_t key) {
      int at = 0;  // the last item that starts no higher
      for (int rest = count; rest > 1;) {
        const int half = rest / 2;
        if (wide.key[at + half] <= key) at += half;
        rest -= half;
      }
      const uint32_t above = key - wide.key[at];
      if (key < wide.key[at] || above >> wide.shift[at] != 0) return Place{levels::kNoBin, 0};
      const uint32_t fine = wide.fine[at];
      return Place{wide.base[at] + (above >> fine), above & ((1u << fine) - 1)};
    });
  }
};

/// The items of the next round.
struct SplitItems {
  using Params = ExactLevels;
  static constexpr int kThreads = 512;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ExactWork& w = p.work;
    if (w.state->done != 0) return;
    auto* scratch = t.shared<double>();
    const int item_count = w.state->items;
    const bool whole = w.state->whole != 0;
    const ExactWork::Items &from = w.items[p.round % 2], &to = w.items[(p.round + 1) % 2];
    const Ends ends{from.lo[0], from.lo[item_count]};
    const Share own = Share::of(t, item_count);
    int32_t found = 0, several = 0;
    for (int i = own.begin; i < own.end; ++i) {
      found += w.split[i] == kKept;
      if (w.split[i] >= 0) for_parts(p, i, from, ends, [&](const Part&) { ++found; });
    }
    int32_t items;
    int at = block_scan(t, scratch, found, &items);
    for (int i = own.begin; i < own.end; ++i) {
      w.first[i] = at;
      if (w.split[i] == kKept) {
        put(to, at++,
            {from.lo[i], from.hi[i], from.below[i], from.above[i], from.key[i], from.shift[i]});
      } else if (w.split[i] >= 0) {
        for_parts(p, i, from, ends, [&](const Part& part) {
          several |= part.lo != part.hi;
          put(to, at++, part);
        });
      }
    }
    if (t.thread() == 0) {
      w.first[item_count] = items;
      to.lo[items] = from.lo[item_count];
      to.below[items] = w.state->all;
    }
    several = block_reduce(t, scratch, several, [](int a, int b) { return a | b; });
    t.sync();
    for (int layer = t.thread(); layer < p.table.positions(); layer += kThreads) {
      const bool all = whole || w.first[w.begin[layer]] == w.first[w.end[layer]];
      const int begin = all ? 0 : w.first[w.begin[layer]];
      w.end[layer] = all ? items : w.first[w.end[layer]];
      w.begin[layer] = begin;
    }
    if (t.thread() != 0) return;
    ExactWork::State* next = w.state;
    next->items = items;
    next->several = several;
    next->whole = 0;
    next->terms += next->finest + next->chain;
    next->cut_error =
        levels::error_of_cuts(next->all, next->radius, next->largest_sum, next->terms);
  }

 private:
  struct Ends {
    double least, most;
  };
  struct Part {
    double lo, hi;
    Cut below, above;
    uint32_t key;
    uint8_t shift;
  };

  TX_DEVICE static void put(const ExactWork::Items& to, int i, const Part& part) {
    to.lo[i] = part.lo;
    to.hi[i] = part.hi;
    to.below[i] = part.below;
    to.above[i] = part.above;
    to.key[i] = part.key;
    to.shift[i] = part.shift;
  }

  /// What bin `bin` of 2^shift keys from part->key on holds, its own sums in part->above; false:
  /// nothing.
  TX_DEVICE static bool fill(const ExactLevels& p, uint32_t bin, const Ends& ends, Part* part) {
    const ExactWork& w = p.work;
    if (p.is_sorted()) {
      const int64_t end = int64_t{part->key} + (int64_t{1} << part->shift);
      const int64_t all = p.sorted.state->distinct;
      if (part->key >= all) return false;
      part->lo = p.sorted.distinct(part->key);
      part->hi = p.sorted.distinct((end < all ? end : all) - 1);
      part->above = w.part[bin];
      return true;
    }
    if (w.hist.held[bin] == 0) return false;
    const levels::FloatBin sums =
        levels::float_bin(part->key, part->shift, w.hist.held[bin], w.hist.first[bin],
                          w.hist.second[bin], ends.least, ends.most);
    part->lo = sums.lo;
    part->hi = sums.hi;
    part->above = sums.sums(w.state->centre);
    return true;
  }

  /// The bins of item i that hold anything; stochastic: but the smallest or the largest value,
  /// which are items of their own.
  template <class Visit>
  TX_DEVICE static void for_parts(const ExactLevels& p, int i, const ExactWork::Items& from,
                                  const Ends& ends, const Visit& visit) {
    const ExactWork::Wide& wide = p.work.wide;
    const int k = p.work.split[i];
    const uint32_t fine = wide.fine[k];
    Part part;
    part.shift = static_cast<uint8_t>(fine);
    Cut at = from.below[i];
    for (uint32_t b = 0; b < 1u << (from.shift[i] - fine); ++b) {
      part.key = from.key[i] + (b << fine);
      if (!fill(p, wide.base[k] + b, ends, &part)) continue;
      part.below = at;
      at = {at.w + part.above.w, at.s + part.above.s, at.q + part.above.q};
      part.above = at;
      const bool end = part.lo == part.hi && (part.lo == ends.least || part.lo == ends.most);
      if (end && p.table.stochastic) continue;
      visit(part);
    }
  }
};

}  // namespace

cudaError_t launch_split_items(const ExactLevels& p, cudaStream_t stream) noexcept {
  cudaError_t status = launch<ChooseSplit>(p, kOneBlock, stream);
  if (status != cudaSuccess) return status;
  const Launch over_values{blocks_for(p.table.n, BinSums::kChunk, 1024), 1, BinSums::kShared};
  status = p.is_sorted() ? launch_sorted_sums(p, stream) : launch<SumSplit>(p, over_values, stream);
  return status != cudaSuccess ? status : launch<SplitItems>(p, kOneBlock, stream);
}

}  // namespace torchext::cuda
