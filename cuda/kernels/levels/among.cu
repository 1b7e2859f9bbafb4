// Levels among candidates, with the arithmetic of csrc/kernels/levels/candidates.cpp.
#include "among.h"
#include "hist_results.cuh"
#include "items.cuh"
#include "programme.cuh"

namespace torchext::cuda {
namespace {

/// Ascending distinct candidates.
struct SortCandidates {
  using Params = Candidates;
  static constexpr int kThreads = 512;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    auto* scratch = t.shared<double>();
    const auto size = static_cast<int>(p.size), capacity = static_cast<int>(p.capacity());
    int bad = 0;
    for (int i = t.thread(); i < capacity; i += kThreads) {
      const double value = i < size ? p.given[i] + 0.0 : HUGE_VAL;  // -0.0 is +0.0
      bad |= i < size && !is_finite(value);
      p.sorted[i] = value;
    }
    bad = block_sum(t, scratch, bad);
    if (t.thread() == 0) *p.count = 0;
    if (bad != 0) return;
    t.sync();
    block_sort<false>(t, p.sorted, nullptr, capacity);
    const int chunk = (size + kThreads - 1) / kThreads, begin = t.thread() * chunk;
    const int end = begin + chunk < size ? begin + chunk : size;
    const auto is_head = [&p](int i) { return i == 0 || p.sorted[i] != p.sorted[i - 1]; };
    int own = 0, count;
    for (int i = begin; i < end; ++i) own += is_head(i);
    int at = block_scan(t, scratch, own, &count);
    for (int i = begin; i < end; ++i)
      if (is_head(i)) p.distinct[at++] = p.sorted[i];
    if (t.thread() == 0) *p.count = count;
  }
};

/// Costs between neighbouring levels. Nodes are candidates; for nearest rounding there is one more
/// on either side, between which and a level nothing is asked.
template <bool kStochastic>
struct AmongCosts {
  const TableItems& items;
  const double* level;   // [size] of candidates, in the units of the items
  const int32_t* below;  // [size] items below each
  int size;

  TX_DEVICE int nodes() const { return size + (kStochastic ? 0 : 2); }
  TX_DEVICE bool is_candidate(int node) const { return kStochastic || (node > 0 && node <= size); }
  TX_DEVICE int index(int node) const { return kStochastic ? node : node - 1; }

  TX_DEVICE DD operator()(int k, int j) const {
    if (k == j) return {};
    if constexpr (kStochastic) {
      return positive(
          levels::interval_cost(about(k), about(j), items.cut[below[k]], items.cut[below[j]]));
    } else {
      if (k == 0 && j > size) return {kUnreachable, 0};  // no level at all
      if (k == 0) return positive(squares(0, below[j - 1], j - 1));
      if (j > size) return positive(squares(below[k - 1], items.items, k - 1));
      const int middle = nearer_to_first(level[k - 1], level[j - 1], below[k - 1], below[j - 1]);
      return positive(squares(below[k - 1], middle, k - 1)) +
             positive(squares(middle, below[j - 1], j - 1));
    }
  }

  /// What an entry may be wrong by.
  TX_DEVICE double error() const {
    const double first = std::fabs(level[0] - items.centre);
    const double last = std::fabs(level[size - 1] - items.centre);
    double radius = items.radius < first ? first : items.radius;
    radius = radius < last ? last : radius;
    const Cut& all = items.cut[items.items];
    const double squares = all.w.h * radius * radius + 2 * radius * items.largest_sum + all.q.h;
    return (0x1p-96 + static_cast<double>(items.items) * 0x1p-102) * squares;
  }

 private:
  TX_DEVICE static DD positive(DD x) { return x.h > 0 ? x : DD{}; }
  TX_DEVICE DD about(int i) const { return levels::two_sum(level[i], -items.centre); }

  /// Squared distances of items [i, j) to a candidate.
  TX_DEVICE DD squares(int i, int j, int candidate) const {
    const DD t = about(candidate);
    const Cut &p = items.cut[i], &q = items.cut[j];
    const DD s = q.s - p.s;
    return (q.q - p.q) - t * (s + s - t * (q.w - p.w));
  }

  /// Items at most as far from a as from b, which have `first` and `last` items below: 2 x <= a +
  /// b, decided exactly.
  TX_DEVICE int nearer_to_first(double a, double b, int first, int last) const {
    const DD sum = levels::two_sum(a, b);
    while (first < last) {
      const int middle = first + (last - first) / 2;
      const double x = 2 * items.lo[middle];
      const bool nearer = x < sum.h || (x == sum.h && sum.l >= 0);
      first = nearer ? middle + 1 : first;
      last = nearer ? last : middle;
    }
    return first;
  }
};

/// Where the arrays of a block lie, in bytes from the start of its memory.
struct AmongLayout {
  int64_t x, weight, lo, start, cut, level, below, best, next, arg, path, args, bytes;
  int capacity, nodes;

  TX_HD_MEMBER static AmongLayout of(const LevelsAmong& p) {
    AmongLayout l{};
    l.capacity = 2;
    while (l.capacity < p.tables.largest()) l.capacity *= 2;
    l.nodes = static_cast<int>(p.from.size) + 2;
    const int64_t all = l.nodes, edges = p.tables.levels + 1 < all ? p.tables.levels + 1 : all;
    const auto next = [&l](int64_t bytes) {
      const int64_t at = l.bytes;
      l.bytes += (bytes + 127) / 128 * 128;
      return at;
    };
    l.x = next(8 * l.capacity);
    l.weight = next(8 * l.capacity);
    l.lo = next(8 * l.capacity);
    l.start = next(4 * (int64_t{l.capacity} + 1));
    l.cut = next((int64_t{l.capacity} + 1) * static_cast<int64_t>(sizeof(Cut)));
    l.level = next(8 * all);
    l.below = next(4 * all);
    l.best = next(16 * all);
    l.next = next(16 * all);
    l.arg = next(2 * all);
    l.path = next(4 * (edges + 1));
    // The programme keeps a row of argmins an edge; it runs where there are candidates to leave
    // out.
    l.args = next(p.tables.levels < p.from.size ? 2 * all * edges : 0);
    return l;
  }
};

template <bool kStochastic, bool kWeighted>
struct SolveAmong {
  using Params = LevelsAmong;
  static constexpr int kThreads = 256, kMinBlocks = 1;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const AmongLayout l = AmongLayout::of(p);
    unsigned char* work = p.tables.work + t.block() * l.bytes;
    TableItems items{};
    items.x = reinterpret_cast<double*>(work + l.x);
    items.weight = reinterpret_cast<double*>(work + l.weight);
    items.lo = items.hi = reinterpret_cast<double*>(work + l.lo);
    items.start = reinterpret_cast<int32_t*>(work + l.start);
    items.cut = reinterpret_cast<Cut*>(work + l.cut);
    items.scratch = t.shared<double>();
    items.capacity = l.capacity;
    for (int64_t k = t.block(); k < p.tables.count; k += t.blocks()) {
      t.sync();  // the table before is done with the memory
      if (!solve(p, t, k, l, work, &items)) write_nothing(p.tables, t, k);
    }
  }

 private:
  /// False: the table has no levels.
  TX_DEVICE static bool solve(const Params& p, const Thread& t, int64_t k, const AmongLayout& l,
                              unsigned char* work, TableItems* items) {
    const int all = *p.from.count;
    if (all == 0) return false;
    const double* given = p.from.distinct;
    const double first = std::fabs(given[0]), last = std::fabs(given[all - 1]);
    if (!read_items<kWeighted>(t, p.tables, k, items, first < last ? last : first)) return false;
    const double least = items->power != 0 ? items->least : items->lo[0];
    const double most = items->power != 0 ? items->most : items->lo[items->items - 1];
    if (kStochastic && (least < given[0] || given[all - 1] < most)) return false;
    // Those that can be of use: up to one on either side of all values.
    int begin = above(given, all, least), end = below(given, all, most);
    if (begin > 0) --begin;
    if (end < begin) end = begin;
    if (end < all) ++end;
    given += begin;
    const int size = end - begin;
    auto* level = reinterpret_cast<double*>(work + l.level);
    auto* lower_items = reinterpret_cast<int32_t*>(work + l.below);
    for (int i = t.thread(); i < size; i += kThreads) {
      level[i] = items->power != 0 ? std::ldexp(given[i], -items->power) : given[i];
      lower_items[i] = below(items->lo, items->items, level[i]);
    }
    t.sync();
    const AmongCosts<kStochastic> cost{*items, level, lower_items, size};
    auto* path = reinterpret_cast<int32_t*>(work + l.path);
    const int levels = p.tables.levels, nodes = cost.nodes();
    const bool choice = levels < size;
    const int edges = choice ? levels + (kStochastic ? -1 : 1) : nodes - 1;
    double lower = HUGE_VAL;
    if (choice) {
      const double value = programme(t, cost, edges, l, work, path);
      const double slack = edges * (2 * std::log2(static_cast<double>(nodes)) + 6) * cost.error();
      lower =
          std::ldexp(value > slack ? value - slack : 0.0, 2 * items->power + items->weight_power);
    }
    if (t.thread() == 0) {
      double* found = p.tables.found + k * levels;
      int count = 0;
      for (int at = 0; at <= edges; ++at) {
        const int node = choice ? path[at] : at;
        if (!cost.is_candidate(node) || (choice && at > 0 && node == path[at - 1])) continue;
        found[count++] = given[cost.index(node)];
      }
      for (int i = count; i < levels; ++i) found[i] = found[count - 1];
      p.tables.distinct[k] = count;
      p.tables.lower[k] = lower;
    }
    return true;
  }

  /// The cheapest path of `edges` edges from the first node to the last, the leftmost among equals
  /// from the end; returns its cost.
  TX_DEVICE static double programme(const Thread& t, const AmongCosts<kStochastic>& cost, int edges,
                                    const AmongLayout& l, unsigned char* work, int32_t* path) {
    const int nodes = cost.nodes(), last = nodes - 1;
    auto best = Plane<DD>::at(reinterpret_cast<double*>(work + l.best), l.nodes);
    auto next = Plane<DD>::at(reinterpret_cast<double*>(work + l.next), l.nodes);
    auto* arg = reinterpret_cast<uint16_t*>(work + l.arg);
    auto* args = reinterpret_cast<uint16_t*>(work + l.args);
    for (int j = t.thread(); j < nodes; j += kThreads) best.set(j, cost(0, j));
    t.sync();
    const Span whole{0, nodes};
    const auto row_of = [&](int r) {
      return [&cost, &best, r](int c) { return best[c] + cost(c, r); };
    };
    for (int e = 2; e < edges; ++e) {
      row_minima(t, whole, whole, 1, arg, next, row_of);
      uint16_t* kept = args + static_cast<size_t>(e - 2) * l.nodes;
      for (int r = t.thread(); r < nodes; r += kThreads) kept[r] = arg[r];
      t.sync();
      const Plane<DD> held = best;
      best = next;
      next = held;
    }
    double value = best.h[last];
    int column = 0;
    if (edges > 1) {
      const Best<DD> way = one_row<DD>(t, t.shared<double>(), whole, row_of(last));
      value = way.value.h;
      column = way.column;
    }
    if (t.thread() == 0) {
      path[edges] = last;
      if (edges > 1) path[edges - 1] = column;
      for (int at = edges - 1; at > 1; --at)
        path[at - 1] = args[static_cast<size_t>(at - 2) * l.nodes + path[at]];
      path[0] = 0;
    }
    t.sync();
    return value;
  }

  /// How many of ascending values are below `value`; or not above it.
  TX_DEVICE static int below(const double* values, int count, double value) {
    int first = 0;
    while (first < count) {
      const int middle = first + (count - first) / 2;
      const bool less = values[middle] < value;
      first = less ? middle + 1 : first;
      count = less ? count : middle;
    }
    return first;
  }
  TX_DEVICE static int above(const double* values, int count, double value) {
    const int at = below(values, count, value);
    return at < count && values[at] == value ? at + 1 : at;
  }
};

struct SettleCosts {
  struct Params {
    LevelTables tables;
    const double *variance, *bias2;
  };
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const LevelTables& to = p.tables;
    for (int64_t k = t.index(); k < to.count; k += t.count()) {
      const double cost = p.variance[k] + p.bias2[k];
      const bool found = to.distinct[k] != 0;
      const levels::Bound bound = levels::settled(cost, to.lower[k]);
      to.cost[k] = found ? cost : __builtin_nan("");
      if (found) to.lower[k] = bound.lower;
      to.certified[k] =
          found && (bound.certified || (to.rtol > 0 && cost - bound.lower <= to.rtol * cost));
    }
  }
};

template <bool kStochastic>
cudaError_t launch_objective(const LevelsAmong& p, cudaStream_t stream) noexcept {
  const Launch at{p.tables.blocks, 1, kOneBlock.shared};
  return p.tables.weight != nullptr ? launch<SolveAmong<kStochastic, true>>(p, at, stream)
                                    : launch<SolveAmong<kStochastic, false>>(p, at, stream);
}

}  // namespace

cudaError_t launch_candidates(const Candidates& p, cudaStream_t stream) noexcept {
  if (p.size < 1 || p.size > kMostCandidates) return cudaErrorInvalidValue;
  return launch<SortCandidates>(p, kOneBlock, stream);
}

int64_t levels_among_work(const LevelsAmong& p) noexcept { return AmongLayout::of(p).bytes; }

cudaError_t launch_levels_among(const LevelsAmong& p, cudaStream_t stream) noexcept {
  if (p.tables.largest() > kMostTableValues) return cudaErrorInvalidValue;
  if (p.tables.count == 0) return cudaSuccess;
  return p.tables.stochastic ? launch_objective<true>(p, stream)
                             : launch_objective<false>(p, stream);
}

cudaError_t launch_costs_among(const LevelTables& p, const double* variance, const double* bias2,
                               cudaStream_t stream) noexcept {
  if (p.count == 0) return cudaSuccess;
  return launch<SettleCosts>({p, variance, bias2}, {blocks_for(p.count, SettleCosts::kThreads)},
                             stream);
}

}  // namespace torchext::cuda
