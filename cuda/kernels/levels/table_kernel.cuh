// A block of threads finds the levels of one table after another, from sort to certificate.
#pragma once

#include "items.cuh"
#include "table.h"

namespace torchext::cuda {

/// Hot arrays up to so many bytes live in shared memory, which every GPU has without asking.
constexpr int64_t kMostShared = 48 * 1024;
constexpr int64_t kScratchBytes = kBlockScratch * sizeof(double);

/// Where the arrays of a block lie, in bytes from the start of its memory.
struct TableLayout {
  int64_t capacity, positions;                      // a power of two; of the programme
  int64_t hot;                                      // bytes of the planes
  int64_t lo, start, cut, path, terms, args, cold;  // in the workspace, and its bytes without `hot`

  TX_HD_MEMBER bool shared() const { return hot + kScratchBytes <= kMostShared; }
  TX_HD_MEMBER int64_t work() const { return cold + (shared() ? 0 : hot); }
};

template <class N>
TX_HD TableLayout layout_of(const LevelTables& p) {
  TableLayout l{};
  l.capacity = 2;
  while (l.capacity < p.largest()) l.capacity *= 2;
  const int64_t cells = p.stochastic ? 0 : 1;  // their paths have a position more than levels
  l.positions = l.capacity + cells;
  const auto padded = [](int64_t bytes) { return (bytes + 15) / 16 * 16; };
  l.hot = padded(l.positions * (Programme<N>::kPlanes * Plane<N>::kWords * 8 + 2));
  const int64_t count = (p.levels < l.capacity ? p.levels : l.capacity) + cells;
  const auto next = [&](int64_t bytes) {
    const int64_t at = l.cold;
    l.cold += padded(bytes);
    return at;
  };
  l.lo = next(8 * l.capacity);
  l.cut = next((l.capacity + 1) * static_cast<int64_t>(sizeof(Cut)));
  l.start = next(4 * (l.capacity + 1));
  l.path = next(4 * count);
  l.terms = next(static_cast<int64_t>(sizeof(DD)) * count);
  l.args = next(2 * l.positions * (count > 3 ? count - 3 : 0));
  l.cold = (l.cold + 127) / 128 * 128;
  return l;
}

/// Bytes of workspace of a block: enough for both launches.
TX_HD int64_t work_of_block(const LevelTables& p) {
  const int64_t plain = layout_of<double>(p).work(), precise = layout_of<DD>(p).work();
  return plain < precise ? precise : plain;
}

template <class N, template <class> class Entries, bool kWeighted, int kThreadsOfBlock>
struct SolveTables {
  using Params = LevelTables;
  static constexpr int kThreads = kThreadsOfBlock;
  static constexpr int kMinBlocks = 1;
  static constexpr bool kPrecise = Plane<N>::kWords > 1, kStochastic = Entries<N>::kStochastic;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const TableLayout l = layout_of<N>(p);
    unsigned char* work = p.work + t.block() * work_of_block(p);
    auto* scratch = t.shared<double>();
    auto* hot = l.shared() ? scratch + kBlockScratch : reinterpret_cast<double*>(work + l.cold);
    using Solver = Programme<N, Entries>;
    auto* arg = reinterpret_cast<uint16_t*>(hot + l.positions * Solver::kPlanes * Plane<N>::kWords);
    Solver programme = Solver::at(hot, arg, static_cast<int>(l.positions));
    TableItems items{};
    items.x = hot;
    items.weight = hot + l.capacity;
    items.lo = reinterpret_cast<double*>(work + l.lo);
    items.start = reinterpret_cast<int32_t*>(work + l.start);
    items.cut = reinterpret_cast<Cut*>(work + l.cut);
    items.scratch = scratch;
    items.capacity = static_cast<int>(l.capacity);
    auto* path = reinterpret_cast<int32_t*>(work + l.path);
    auto* terms = reinterpret_cast<DD*>(work + l.terms);
    auto* args = reinterpret_cast<uint16_t*>(work + l.args);
    double* chosen = hot + l.capacity;  // when the planes are not needed any more
    for (int64_t k = t.block(); k < p.count; k += t.blocks()) {
      if (kPrecise && (p.certified[k] || p.distinct[k] == 0)) continue;
      t.sync();  // the table before is done with the memory
      if (!read_items<kWeighted>(t, p, k, &items)) {
        give_up(p, t, k);
      } else if (items.items <= p.levels) {
        for (int i = t.thread(); i < items.items; i += t.threads()) chosen[i] = items.lo[i];
        write(p, t, k, items, chosen, items.items, 0, {0, true});
      } else {
        const int count = p.levels + (kStochastic ? 0 : 1);  // positions of a path
        int found = p.levels;
        const double value = solve_items(t, items, &programme, count, args, path);
        double cost = cost_of_path<kStochastic>(t, items, path, count, terms);
        if (!levels::is_accurate(cost, items.cut_error, count)) {
          cost = cost_by_value<kStochastic>(t, items, path, count, hot, &found);
        } else {
          levels_of_path<kStochastic>(t, items, path, count, chosen);
        }
        write(p, t, k, items, chosen, found, cost, levels::settled(cost, value));
      }
    }
  }

 private:
  /// Levels `chosen` [count], in the units of the items, and what is known about them.
  TX_DEVICE static void write(const Params& p, const Thread& t, int64_t k, const TableItems& m,
                              double* chosen, int count, double cost, levels::Bound bound) {
    const bool stores = p.moved != nullptr;
    t.sync();
    if (kStochastic && stores && count == 1 && p.levels > 1) {  // which may lie between two stored
      if (t.thread() == 0) chosen[1] = chosen[0];
      count = 2;
      t.sync();
    }
    int moved = 0, beyond = 0;
    for (int i = t.thread(); i < count; i += t.threads()) {
      double level = std::ldexp(chosen[i], m.power) + 0.0;
      if (kStochastic && m.power != 0) level = i == 0 ? m.least : i == count - 1 ? m.most : level;
      chosen[i] = level;
      if (!stores) continue;
      chosen[i] = levels::stored_level(p.format, level, levels::direction(kStochastic, i, count));
      moved |= chosen[i] != level;
      beyond |= std::fabs(chosen[i]) > levels::largest_number(p.format);
    }
    if (stores && block_sum(t, m.scratch, beyond) > 0) {
      give_up(p, t, k);
      return;
    }
    moved = stores ? block_sum(t, m.scratch, moved) : 0;
    t.sync();
    const int distinct = write_distinct(p, t, p.found + k * p.levels, m, chosen, count);
    if (t.thread() != 0) return;
    const int power = 2 * m.power + m.weight_power;
    if (stores) p.moved[k] = moved > 0;
    p.distinct[k] = distinct;
    p.cost[k] = std::ldexp(cost, power);
    p.lower[k] = std::ldexp(bound.lower, power);
    p.certified[k] =
        bound.certified || (kPrecise && p.rtol > 0 && p.cost[k] - p.lower[k] <= p.rtol * p.cost[k]);
  }

  /// Ascending levels, without those that became equal if they were stored, to found [p.levels];
  /// copies of the last behind them. Returns how many there are.
  TX_DEVICE static int write_distinct(const Params& p, const Thread& t, double* found,
                                      const TableItems& m, const double* chosen, int count) {
    int distinct = count;
    if (p.moved == nullptr) {
      for (int i = t.thread(); i < count; i += t.threads()) found[i] = chosen[i];
    } else {
      const int chunk = (count + t.threads() - 1) / t.threads(), begin = t.thread() * chunk;
      const int end = begin + chunk < count ? begin + chunk : count;
      int heads = 0;
      for (int i = begin; i < end; ++i) heads += i == 0 || chosen[i] > chosen[i - 1];
      int at = block_scan(t, m.scratch, heads, &distinct);
      for (int i = begin; i < end; ++i)
        if (i == 0 || chosen[i] > chosen[i - 1]) found[at++] = chosen[i];
    }
    for (int i = distinct + t.thread(); i < p.levels; i += t.threads())
      found[i] = chosen[count - 1];
    return distinct;
  }

  TX_DEVICE static void give_up(const Params& p, const Thread& t, int64_t k) {
    const double nan = __builtin_nan("");
    for (int i = t.thread(); i < p.levels; i += t.threads()) p.found[k * p.levels + i] = nan;
    if (t.thread() != 0) return;
    p.distinct[k] = 0;
    p.cost[k] = p.lower[k] = nan;
    p.certified[k] = false;
    if (p.moved != nullptr) p.moved[k] = false;
  }
};

template <class N, template <class> class Entries, bool kWeighted>
cudaError_t launch_kind(const LevelTables& p, cudaStream_t stream) noexcept {
  const TableLayout l = layout_of<N>(p);
  Launch at{p.blocks};
  at.shared = static_cast<size_t>(kScratchBytes + (l.shared() ? l.hot : 0));
  return l.capacity <= 1024 ? launch<SolveTables<N, Entries, kWeighted, 64>>(p, at, stream)
                            : launch<SolveTables<N, Entries, kWeighted, 512>>(p, at, stream);
}

template <template <class> class Entries, bool kWeighted>
cudaError_t launch_both(const LevelTables& p, cudaStream_t stream) noexcept {
  const cudaError_t status = launch_kind<double, Entries, kWeighted>(p, stream);
  return status != cudaSuccess ? status : launch_kind<DD, Entries, kWeighted>(p, stream);
}

/// In double, then in double-double where that proved too little.
template <template <class> class Entries>
cudaError_t launch_tables(const LevelTables& p, cudaStream_t stream) noexcept {
  return p.weight != nullptr ? launch_both<Entries, true>(p, stream)
                             : launch_both<Entries, false>(p, stream);
}

}  // namespace torchext::cuda
