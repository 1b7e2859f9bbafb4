// Exact levels of sorted values: what takes the place of bins of bit patterns. A bin is 2^shift
// distinct values; its sums are added up in double-double.
#include "exact.h"
#include "hist_results.cuh"
#include "items.cuh"

namespace torchext::cuda {
namespace {

using levels::Cut;

constexpr int kMostShift = 31;  // n < 2^31, says check_sizes

/// All values as one item, to be split.
struct OpenValues {
  using Params = ExactLevels;
  static constexpr int kThreads = 32;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    if (t.thread() != 0) return;
    const SortedValues::State& sorted = *p.sorted.state;
    int shift = 0, fine = 0;
    while (shift < kMostShift && int64_t{1} << shift < sorted.distinct) ++shift;
    while (int64_t{1} << (shift - fine) > kHistBins) ++fine;
    const ExactWork::Wide& wide = p.work.wide;
    wide.key[0] = wide.base[0] = 0;
    wide.shift[0] = static_cast<uint8_t>(shift);
    wide.fine[0] = static_cast<uint8_t>(fine);
    ExactWork::State s{};
    s.wide = 1;
    s.bins = static_cast<int32_t>((int64_t{sorted.distinct} + (int64_t{1} << fine) - 1) >> fine);
    *p.work.state = s;
  }
};

/// The sums of every bin that the wide items are split into: one of few terms by a thread, one of
/// many by a block.
struct SumPlaces {
  using Params = ExactLevels;
  static constexpr int kThreads = 128;
  static constexpr int64_t kFew = 16;
  static constexpr size_t kShared = kThreads / 32 * sizeof(Cut);

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ExactWork& w = p.work;
    if (w.state->done != 0 || w.state->wide == 0) return;
    const int64_t bins = w.state->bins;
    for (int64_t bin = t.index(); bin < bins; bin += t.count()) {
      const Terms own = terms_of(p, bin);
      if (own.end - own.begin <= kFew) w.part[bin] = sum(p.sorted, own, 0, 1);
    }
    for (int64_t bin = t.block(); bin < bins; bin += t.blocks()) {
      const Terms own = terms_of(p, bin);
      if (own.end - own.begin <= kFew) continue;
      Cut sums = sum(p.sorted, own, t.thread(), kThreads);
      join(t, &sums);
      if (t.thread() == 0) w.part[bin] = sums;
    }
  }

 private:
  /// What a bin adds up: distinct values, or all of them if they have weights.
  struct Terms {
    int64_t begin, end;
  };

  TX_DEVICE static Terms terms_of(const Params& p, int64_t bin) {
    const ExactWork::Wide& wide = p.work.wide;
    int k = 0;  // the last item whose bins start no later
    for (int rest = p.work.state->wide; rest > 1;) {
      const int half = rest / 2;
      if (wide.base[k + half] <= bin) k += half;
      rest -= half;
    }
    const uint32_t fine = wide.fine[k];
    const int64_t begin = wide.key[k] + ((bin - wide.base[k]) << fine);
    const int64_t last = begin + (int64_t{1} << fine), all = p.sorted.state->distinct;
    if (begin >= all) return {0, 0};
    const int64_t end = last < all ? last : all;
    const uint32_t* start = p.sorted.start;
    return p.sorted.heavy == nullptr ? Terms{begin, end} : Terms{start[begin], start[end]};
  }

  /// Every `step`th term from `first` on.
  TX_DEVICE static Cut sum(const SortedValues& v, Terms terms, int first, int step) {
    Cut sums{};
    const double centre = v.state->centre;
    const bool weighted = v.heavy != nullptr;
    for (int64_t i = terms.begin + first; i < terms.end; i += step) {
      const DD weight{weighted ? v.heavy[i] : static_cast<double>(v.start[i + 1] - v.start[i]), 0};
      const DD at = levels::two_sum(weighted ? v.value[i] : v.distinct(i), -centre);
      const DD moment = weight * at;
      sums = {sums.w + weight, sums.s + moment, sums.q + moment * at};
    }
    return sums;
  }

  /// Over all threads, in a fixed order; the first of them has the sum.
  TX_DEVICE static void join(const Thread& t, Cut* sums) {
    for (int half = 16; half > 0; half /= 2) {
      const Cut other{shuffle_xor(t, sums->w, half), shuffle_xor(t, sums->s, half),
                      shuffle_xor(t, sums->q, half)};
      *sums = {sums->w + other.w, sums->s + other.s, sums->q + other.q};
    }
    auto* parts = t.shared<Cut>();
    t.sync();  // nobody reads those of the bin before any more
    if (t.lane() == 0) parts[t.warp()] = *sums;
    t.sync();
    for (int k = 1; t.thread() == 0 && k < kThreads / 32; ++k)
      *sums = {sums->w + parts[k].w, sums->s + parts[k].s, sums->q + parts[k].q};
  }
};

/// The bins as items, with the sums below each.
struct TakePlaces {
  using Params = ExactLevels;
  static constexpr int kThreads = 512;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const ExactWork& w = p.work;
    const SortedValues& v = p.sorted;
    const int bins = w.state->bins, distinct = v.state->distinct, fine = w.wide.fine[0];
    auto* scratch = t.shared<double>();
    // The smallest and the largest value are items of their own if they are to be levels; their
    // mass is in the bins.
    const bool ends = p.table.stochastic;
    const int before = ends && fine > 0 ? 1 : 0;
    const int after = ends && bins > 0 && ((bins - 1) << fine) + 1 < distinct ? 1 : 0;
    const int all = bins + before + after;
    const ExactWork::Items& to = w.items[0];
    for (int b = t.thread(); b < bins; b += kThreads) {
      const int begin = b << fine, end = b == bins - 1 ? distinct : begin + (1 << fine);
      to.lo[before + b] = v.distinct(begin);
      to.hi[before + b] = v.distinct(end - 1);
      to.key[before + b] = static_cast<uint32_t>(begin);
      to.shift[before + b] = static_cast<uint8_t>(fine);
      to.below[before + b] = w.part[b];
    }
    if (t.thread() == 0 && before != 0) own_item(to, 0, v.distinct(0));
    if (t.thread() == 0 && after != 0) own_item(to, all - 1, v.distinct(distinct - 1));
    t.sync();
    Cut* cut = to.below + before;
    running_cuts(t, cut, bins);
    if (t.thread() == 0) {
      if (before != 0) to.below[0] = Cut{};
      if (after != 0) to.below[all] = to.below[all - 1];
      if (all > 0) to.lo[all] = to.hi[all - 1];
    }
    t.sync();
    double largest = 0;
    for (int i = t.thread(); i < all; i += kThreads) {
      const double s = std::fabs(to.below[i + 1].s.h);
      to.above[i] = to.below[i + 1];
      largest = largest < s ? s : largest;
    }
    largest = block_max(t, scratch, largest);
    for (int i = t.thread(); i < p.table.positions(); i += kThreads) {
      w.begin[i] = 0;
      w.end[i] = all;
    }
    if (t.thread() != 0) return;
    ExactWork::State s{};
    s.items = all;
    s.several = fine > 0;
    s.centre = v.state->centre;
    if (all > 0) {
      const double low = std::fabs(to.lo[0] - s.centre),
                   high = std::fabs(to.hi[all - 1] - s.centre);
      s.radius = low < high ? high : low;
      s.all = to.below[all];
    }
    s.largest_sum = largest;
    s.chain = static_cast<double>(v.state->present) / SumPlaces::kThreads + 16;
    s.terms = s.chain + all + 4;
    s.cut_error = levels::error_of_cuts(s.all, s.radius, largest, s.terms);
    s.upper = HUGE_VAL;
    *w.state = s;
  }

 private:
  TX_DEVICE static void own_item(const ExactWork::Items& to, int i, double value) {
    to.lo[i] = to.hi[i] = value;
    to.key[i] = to.shift[i] = 0;
  }
};

/// The results in the units of the values.
struct ScaleResults {
  using Params = ExactLevels;
  static constexpr int kThreads = 512;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const SortedValues& v = p.sorted;
    const SortedValues::State& s = *v.state;
    const auto count = static_cast<int>(*p.table.distinct);
    if (count == 0 || (s.power == 0 && s.weight_power == 0)) return;
    const bool ends = p.table.stochastic && s.power != 0;  // means are no values
    const double least = ends ? -largest_given(v, t, 0, -1) : 0,
                 most = ends ? largest_given(v, t, s.distinct - 1, 1) : 0;
    for (int i = t.thread(); i < p.table.levels && s.power != 0; i += kThreads) {
      const double level = std::ldexp(p.table.found[i], s.power) + 0.0;
      p.table.found[i] = ends && i == 0 ? least : ends && i >= count - 1 ? most : level;
    }
    if (t.thread() != 0) return;
    const int power = 2 * s.power + s.weight_power;
    *p.table.cost = std::ldexp(*p.table.cost, power);
    *p.table.lower = std::ldexp(*p.table.lower, power);
  }

 private:
  /// Scaling may have made values equal that are not: the largest of sign x among those.
  TX_DEVICE static double largest_given(const SortedValues& v, const Thread& t, int64_t distinct,
                                        double sign) {
    double largest = -HUGE_VAL;
    for (int64_t i = v.start[distinct] + t.thread(); i < v.start[distinct + 1]; i += kThreads) {
      const double value = sign * v.given(v.place[i]);
      largest = largest < value ? value : largest;
    }
    return block_max(t, t.shared<double>(), largest);
  }
};

}  // namespace

cudaError_t launch_sorted_sums(const ExactLevels& p, cudaStream_t stream) noexcept {
  return launch<SumPlaces>(p, {1024, 1, SumPlaces::kShared}, stream);
}

cudaError_t launch_sorted_items(const ExactLevels& p, cudaStream_t stream) noexcept {
  cudaError_t status = launch<OpenValues>(p, kOneBlock, stream);
  if (status == cudaSuccess) status = launch_sorted_sums(p, stream);
  return status != cudaSuccess ? status : launch<TakePlaces>(p, kOneBlock, stream);
}

cudaError_t launch_sorted_results(const ExactLevels& p, cudaStream_t stream) noexcept {
  return launch<ScaleResults>(p, kOneBlock, stream);
}

}  // namespace torchext::cuda
