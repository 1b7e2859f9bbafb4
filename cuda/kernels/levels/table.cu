#include "items.cuh"
#include "table.h"

namespace torchext::cuda {
namespace {

/// Hot arrays up to so many bytes live in shared memory, which every GPU has without asking.
constexpr int64_t kMostShared = 48 * 1024;
constexpr int64_t kScratchBytes = kBlockScratch * sizeof(double);

/// Where the arrays of a block lie, in bytes from the start of its memory.
struct Layout {
  int64_t capacity, hot, argmins;  // a power of two; bytes of the planes; layers of argmins kept
  int64_t lo, start, cut, path, terms, args, cold;  // in the workspace, and its bytes without `hot`

  TX_HD_MEMBER bool shared() const { return hot + kScratchBytes <= kMostShared; }
  TX_HD_MEMBER int64_t work() const { return cold + (shared() ? 0 : hot); }
};

template <class N>
TX_HD Layout layout_of(const LevelTables& p) {
  Layout l{};
  l.capacity = 2;
  while (l.capacity < p.largest()) l.capacity *= 2;
  l.hot = l.capacity * (Programme<N>::kPlanes * Plane<N>::kWords * 8 + 2);
  const int64_t levels = p.levels < l.capacity ? p.levels : l.capacity;
  const auto next = [&](int64_t bytes) {
    const int64_t at = l.cold;
    l.cold += (bytes + 15) / 16 * 16;
    return at;
  };
  l.lo = next(8 * l.capacity);
  l.cut = next((l.capacity + 1) * static_cast<int64_t>(sizeof(Cut)));
  l.start = next(4 * (l.capacity + 1));
  l.path = next(4 * levels);
  l.terms = next(static_cast<int64_t>(sizeof(DD)) * levels);
  l.args = next(2 * l.capacity * (levels > 3 ? levels - 3 : 0));
  l.cold = (l.cold + 127) / 128 * 128;
  return l;
}

/// Bytes of workspace of a block: enough for both launches.
TX_HD int64_t work_of_block(const LevelTables& p) {
  const int64_t plain = layout_of<double>(p).work(), precise = layout_of<DD>(p).work();
  return plain < precise ? precise : plain;
}

template <class N, bool kWeighted, int kThreadsOfBlock>
struct SolveTables {
  using Params = LevelTables;
  static constexpr int kThreads = kThreadsOfBlock;
  static constexpr bool kPrecise = Plane<N>::kWords > 1;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Layout l = layout_of<N>(p);
    unsigned char* work = p.work + t.block() * work_of_block(p);
    auto* scratch = t.shared<double>();
    auto* hot = l.shared() ? scratch + kBlockScratch : reinterpret_cast<double*>(work + l.cold);
    auto* arg =
        reinterpret_cast<uint16_t*>(hot + l.capacity * Programme<N>::kPlanes * Plane<N>::kWords);
    const auto capacity = static_cast<int>(l.capacity);
    Programme<N> programme = Programme<N>::at(hot, arg, capacity);
    TableItems items{};
    items.x = hot;
    items.weight = hot + l.capacity;
    items.lo = reinterpret_cast<double*>(work + l.lo);
    items.start = reinterpret_cast<int32_t*>(work + l.start);
    items.cut = reinterpret_cast<Cut*>(work + l.cut);
    items.scratch = scratch;
    items.capacity = capacity;
    auto* path = reinterpret_cast<int32_t*>(work + l.path);
    auto* terms = reinterpret_cast<DD*>(work + l.terms);
    auto* args = reinterpret_cast<uint16_t*>(work + l.args);
    for (int64_t k = t.block(); k < p.count; k += t.blocks()) {
      if (kPrecise && (p.certified[k] || p.distinct[k] == 0)) continue;
      t.sync();  // the table before is done with the memory
      if (!read_items<kWeighted>(t, p, k, &items)) {
        give_up(p, t, k);
      } else if (items.items <= p.levels) {
        for (int i = t.thread(); i < items.items; i += t.threads()) path[i] = i;
        t.sync();
        write(p, t, k, items, path, items.items, 0, {0, true});
      } else {
        const double value = solve_items(t, items, &programme, p.levels, args, path);
        double cost = cost_of_path(t, items, path, p.levels, terms);
        if (!levels::is_accurate(cost, items.cut_error, p.levels))
          cost = cost_by_value(t, items, path, p.levels, hot);
        write(p, t, k, items, path, p.levels, cost, levels::settled(cost, value));
      }
    }
  }

 private:
  TX_DEVICE static void write(const Params& p, const Thread& t, int64_t k, const TableItems& m,
                              const int32_t* path, int count, double cost, levels::Bound bound) {
    for (int i = t.thread(); i < p.levels; i += t.threads()) {
      const int at = i < count ? i : count - 1;
      double level = std::ldexp(m.lo[path[at]], m.power) + 0.0;
      if (m.power != 0) level = at == 0 ? m.least : at == count - 1 ? m.most : level;
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

  TX_DEVICE static void give_up(const Params& p, const Thread& t, int64_t k) {
    const double nan = __builtin_nan("");
    for (int i = t.thread(); i < p.levels; i += t.threads()) p.found[k * p.levels + i] = nan;
    if (t.thread() != 0) return;
    p.distinct[k] = 0;
    p.cost[k] = p.lower[k] = nan;
    p.certified[k] = false;
  }
};

template <class N, bool kWeighted>
cudaError_t launch_kind(const LevelTables& p, cudaStream_t stream) noexcept {
  const Layout l = layout_of<N>(p);
  Launch at{p.blocks};
  at.shared = static_cast<size_t>(kScratchBytes + (l.shared() ? l.hot : 0));
  return l.capacity <= 1024 ? launch<SolveTables<N, kWeighted, 64>>(p, at, stream)
                            : launch<SolveTables<N, kWeighted, 512>>(p, at, stream);
}

template <bool kWeighted>
cudaError_t launch_both(const LevelTables& p, cudaStream_t stream) noexcept {
  const cudaError_t status = launch_kind<double, kWeighted>(p, stream);
  return status != cudaSuccess ? status : launch_kind<DD, kWeighted>(p, stream);
}

}  // namespace

int64_t level_tables_work(const LevelTables& p) noexcept { return work_of_block(p); }

cudaError_t launch_level_tables(const LevelTables& p, cudaStream_t stream) noexcept {
  if (p.largest() > kMostTableValues || p.levels < 2) return cudaErrorInvalidValue;
  if (p.count == 0) return cudaSuccess;
  return p.weight != nullptr ? launch_both<true>(p, stream) : launch_both<false>(p, stream);
}

}  // namespace torchext::cuda
