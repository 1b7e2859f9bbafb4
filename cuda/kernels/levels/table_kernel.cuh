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
    items.lo = items.hi = reinterpret_cast<double*>(work + l.lo);
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
        write_nothing(p, t, k);
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
                              const double* chosen, int count, double cost, levels::Bound bound) {
    t.sync();
    for (int i = t.thread(); i < p.levels; i += t.threads()) {
      const int at = i < count ? i : count - 1;
      double level = std::ldexp(chosen[at], m.power) + 0.0;
      if (kStochastic && m.power != 0) level = at == 0 ? m.least : at == count - 1 ? m.most : level;
      p.found[k * p.levels + i] = level;
    }
    if (t.thread() != 0) return;
    const int power = 2 * m.power + m.weight_power;
    p.distinct[k] = count;
    p.cost[k] = std::ldexp(cost, power);
    p.lower[k] = std::ldexp(bound.lower, power);
    p.certified[k] =
        bound.certified || (kPrecise && p.rtol > 0 && p.cost[k] - p.lower[k] <= p.rtol * p.cost[k]);
  }
};

template <class N, template <class> class Entries, bool kWeighted>
cudaError_t launch_kind(const LevelTables& p, cudaStream_t stream) noexcept {
  const TableLayout l = layout_of<N>(p);
  Launch at{p.blocks};
  at.shared = static_cast<size_t>(kScratchBytes + (l.shared() ? l.hot : 0));
  constexpr int kMany = Plane<N>::kWords > 1 ? 384 : 512;  // more registers than 512 threads have
  return l.capacity <= 1024 ? launch<SolveTables<N, Entries, kWeighted, 64>>(p, at, stream)
                            : launch<SolveTables<N, Entries, kWeighted, kMany>>(p, at, stream);
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
