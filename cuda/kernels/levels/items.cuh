// The values of a table as the programme sees them: distinct, ascending, with the sums below each.
//
// Every sum has the terms and the order of csrc/kernels/levels/axis.cpp, so it has the same bits.
#pragma once

#include "block.cuh"
#include "finite.cuh"
#include "kernels/levels/interval.h"
#include "kernels/levels/scaling.h"
#include "programme.cuh"
#include "table.h"

namespace torchext::cuda {

using levels::Cut;

/// Memory of a block and what has been found out about its table.
struct TableItems {
  double *x, *weight;  // [capacity] values and weights in the making
  double *lo, *hi;     // [capacity] distinct values, divided by 2^power; or ends of bins
  int32_t* start;      // [capacity + 1] where a distinct value begins among the sorted ones
  Cut* cut;            // [capacity + 1] sums below each item, weights divided by 2^weight_power
  double* scratch;
  int capacity;

  int present, items, power, weight_power;  // values that count; distinct ones
  double least, most;                       // the ends, of which scaling may lose bits
  double centre, radius, largest_sum, cut_error;

  TX_DEVICE DD about(int i) const { return levels::two_sum(lo[i], -centre); }
};

/// Reads, checks, scales and sorts group k; `largest` is the magnitude of what else is to be
/// scaled. False for a table without an answer.
template <bool kWeighted>
TX_DEVICE bool read_values(const Thread& t, const LevelTables& p, int64_t k, TableItems* m,
                           double largest) {
  const int64_t rest = p.n - k * p.inner;
  const auto size = static_cast<int>(p.outer > 1      ? p.outer * p.inner
                                     : rest < p.inner ? rest
                                                      : p.inner);
  int present = 0, bad = 0;
  double heaviest = 0, least = HUGE_VAL, most = -HUGE_VAL;
  for (int i = t.thread(); i < m->capacity; i += t.threads()) {
    double value = HUGE_VAL, w = 0;  // what is absent goes to the end
    if (i < size) {
      const int64_t o = i / p.inner, at = (o * p.count + k) * p.inner + (i - o * p.inner);
      value = p.x32 != nullptr ? static_cast<double>(p.x32[at]) : p.x64[at];
      value += 0.0;  // -0.0 is +0.0
      w = kWeighted ? p.weight[at] : 1.0;
      bad |= !is_finite(value) || !(w >= 0) || !is_finite(w);
      present += w > 0;
      if (w > 0) {
        largest = largest < std::fabs(value) ? std::fabs(value) : largest;
        heaviest = heaviest < w ? w : heaviest;
        least = value < least ? value : least;
        most = value > most ? value : most;
      } else {
        value = HUGE_VAL;
      }
    }
    m->x[i] = value;
    if (kWeighted) m->weight[i] = w;
  }
  m->present = block_sum(t, m->scratch, present);
  if (block_sum(t, m->scratch, bad) > 0 || m->present == 0) return false;
  m->power = levels::scaling_exponent(block_max(t, m->scratch, largest));
  m->weight_power = kWeighted ? levels::weight_exponent(block_max(t, m->scratch, heaviest)) : 0;
  if (m->power != 0) {
    m->least = -block_max(t, m->scratch, -least);
    m->most = block_max(t, m->scratch, most);
  }
  if (m->power != 0 || m->weight_power != 0) {
    for (int i = t.thread(); i < m->capacity; i += t.threads()) {
      m->x[i] = std::ldexp(m->x[i], -m->power) + 0.0;
      if (kWeighted) m->weight[i] = std::ldexp(m->weight[i], -m->weight_power);
    }
  }
  t.sync();
  block_sort<kWeighted>(t, m->x, m->weight, m->capacity);
  return true;
}

/// Distinct values to lo, where they begin to start.
TX_DEVICE void merge_equal(const Thread& t, TableItems* m) {
  const int chunk = (m->present + t.threads() - 1) / t.threads();
  const int begin = t.thread() * chunk;
  const int end = begin + chunk < m->present ? begin + chunk : m->present;
  int heads = 0;
  for (int i = begin; i < end; ++i) heads += i == 0 || m->x[i] != m->x[i - 1];
  int at = block_scan(t, m->scratch, heads, &m->items);
  for (int i = begin; i < end; ++i) {
    if (i > 0 && m->x[i] == m->x[i - 1]) continue;
    m->lo[at] = m->x[i];
    m->start[at++] = i;
  }
  if (t.thread() == 0) m->start[m->items] = m->present;
  t.sync();
}

/// Sum and centre: plain sums in a fixed order, one thread each. False if the weights' sum is not
/// finite.
template <bool kWeighted>
TX_DEVICE bool find_centre(const Thread& t, TableItems* m) {
  if (t.thread() == 0) {
    double sum = 0;
    const double first = m->x[0];
    for (int i = 0; i < m->present; ++i)
      sum += kWeighted ? m->weight[i] * (m->x[i] - first) : m->x[i] - first;
    m->scratch[0] = sum;
  }
  if (t.thread() == 32) {
    double total = m->present;
    if (kWeighted) {
      total = 0;
      for (int i = 0; i < m->present; ++i) total += m->weight[i];
    }
    m->scratch[1] = total;
  }
  t.sync();
  const double sum = m->scratch[0], total = m->scratch[1];
  t.sync();
  if (kWeighted && !is_finite(std::ldexp(total, m->weight_power))) return false;
  m->centre = levels::round_centre(m->lo[0] + sum / total, m->lo[0], m->lo[m->items - 1]);
  return true;
}

/// One double-double addition after another.
struct PlainSum {
  DD sum;
  TX_DEVICE void add(DD x) { sum = sum + x; }
  TX_DEVICE DD get() const { return sum; }
};

/// In place: each term becomes the sum of those before it, added in order by Sum. The warp adds all
/// terms together; a lane keeps the sum before its own. cut[items] receives the whole sum.
template <class Sum>
TX_DEVICE void running_sums(const Thread& t, Cut* cut, DD Cut::* which, int items) {
  Sum sum;
  for (int base = 0; base <= items; base += 32) {
    const int i = base + t.lane();
    Sum before;
    DD term;
    if (i < items) term = cut[i].*which;
    for (int lane = 0; lane < 32; ++lane) {
      const DD next{t.shuffle(term.h, lane), t.shuffle(term.l, lane)};
      if (lane == t.lane()) before = sum;
      sum.add(next);  // beyond the end zeros, after which nothing is read
    }
    if (i <= items) cut[i].*which = before.get();
  }
}

/// All three sums of bins, by three warps.
TX_DEVICE void running_cuts(const Thread& t, Cut* cut, int items) {
  if (t.warp() == 0) running_sums<PlainSum>(t, cut, &Cut::s, items);
  if (t.warp() == 1) running_sums<PlainSum>(t, cut, &Cut::q, items);
  if (t.warp() == 2) running_sums<PlainSum>(t, cut, &Cut::w, items);
  t.sync();
}

/// Sums of the weights below each item, one double-double addition after another.
TX_DEVICE void running_weights(Cut* cut, int items) {
  DD below;
  for (int i = 0; i <= items; ++i) {
    const DD w = cut[i].w;
    cut[i].w = below;
    if (i == items) break;
    const bool one = w.h == 1 && w.l == 0;
    below = below.l == 0 && one ? DD{below.h + 1, 0} : below + w;
  }
}

/// The sums below every item, and what their errors can do.
template <bool kWeighted>
TX_DEVICE void sum_items(const Thread& t, TableItems* m) {
  for (int i = t.thread(); i < m->items; i += t.threads()) {
    DD w{static_cast<double>(m->start[i + 1] - m->start[i]), 0};
    if (kWeighted) {
      w = DD{m->weight[m->start[i]], 0};
      for (int k = m->start[i] + 1; k < m->start[i + 1]; ++k) w = w + DD{m->weight[k], 0};
    }
    const DD at = m->about(i), wt = w.h == 1 && w.l == 0 ? at : w * at;
    m->cut[i] = {w, wt, wt * at};
  }
  t.sync();
  if (t.warp() == 0) running_sums<levels::RunningSum>(t, m->cut, &Cut::s, m->items);
  if (t.warp() == 1) running_sums<levels::RunningSum>(t, m->cut, &Cut::q, m->items);
  if (kWeighted && t.thread() == 0) running_weights(m->cut, m->items);
  t.sync();
  double largest = 0;
  for (int i = t.thread(); i <= m->items; i += t.threads()) {
    if (!kWeighted) m->cut[i].w = {static_cast<double>(m->start[i]), 0};
    const double s = std::fabs(m->cut[i].s.h);
    largest = largest < s ? s : largest;
  }
  m->largest_sum = block_max(t, m->scratch, largest);
  const double below = std::fabs(m->lo[0] - m->centre);
  const double above = std::fabs(m->lo[m->items - 1] - m->centre);
  m->radius = below < above ? above : below;
  m->cut_error = levels::error_of_cuts(m->cut[m->items], m->radius, m->largest_sum,
                                       4 * static_cast<double>(m->present));
}

/// Cost of a path of `count` positions from the sums below them, in all threads.
template <bool kStochastic = true>
TX_DEVICE double cost_of_path(const Thread& t, const TableItems& m, const int32_t* path, int count,
                              DD* terms) {
  for (int i = t.thread(); i + 1 < count; i += t.threads()) {
    const int a = path[i], b = path[i + 1];
    if constexpr (kStochastic) {
      terms[i] = levels::interval_cost(m.about(a), m.about(b), m.cut[a], m.cut[b]);
    } else {
      terms[i] = levels::cluster_cost(m.cut[a], m.cut[b]);
    }
  }
  t.sync();
  DD cost;
  for (int i = 0; i + 1 < count; ++i)
    if (DD{} < terms[i]) cost = cost + terms[i];
  return cost.h;
}

/// The levels of a path of `count` positions to `chosen`.
template <bool kStochastic>
TX_DEVICE void levels_of_path(const Thread& t, const TableItems& m, const int32_t* path, int count,
                              double* chosen) {
  if constexpr (kStochastic) {
    for (int i = t.thread(); i < count; i += t.threads()) chosen[i] = m.lo[path[i]];
  } else {
    for (int i = t.thread(); i + 1 < count; i += t.threads()) {
      const int a = path[i], b = path[i + 1];
      chosen[i] = levels::cluster_mean(m.cut[a], m.cut[b], m.centre, m.lo[a], m.hi[b - 1]);
    }
  }
}

/// The same value by value, where the sums cancel too much. `memory` [2 capacity]: the second half
/// receives the levels; `levels`, for nearest rounding, how many have any weight.
template <bool kStochastic = true>
TX_DEVICE double cost_by_value(const Thread& t, const TableItems& m, const int32_t* path, int count,
                               double* memory, int* levels = nullptr) {
  double *weight = memory, *chosen = memory + m.capacity;
  for (int i = t.thread(); i < m.items; i += t.threads())
    weight[i] = (m.cut[i + 1].w - m.cut[i].w).h;
  if constexpr (kStochastic) levels_of_path<true>(t, m, path, count, chosen);
  t.sync();
  if (t.thread() == 0) {
    auto found = static_cast<size_t>(count);
    if constexpr (!kStochastic) found = levels::direct_means(m.lo, weight, path, found - 1, chosen);
    m.scratch[0] = levels::direct_cost(
        m.lo, weight, static_cast<size_t>(m.items),
        kStochastic ? levels::Objective::stochastic : levels::Objective::nearest, chosen, found);
    m.scratch[1] = static_cast<double>(found);
  }
  t.sync();
  if constexpr (!kStochastic) *levels = static_cast<int>(m.scratch[1]);
  return m.scratch[0];
}

/// The best path of `count` positions, those between the ends from span_of(layer); returns a lower
/// bound of its cost.
template <class N, template <class> class Entries, class SpanOf>
TX_DEVICE double solve_items(const Thread& t, const TableItems& m, Programme<N, Entries>* programme,
                             int count, uint16_t* args, int32_t* path, const SpanOf& span_of) {
  t.sync();
  const int positions = Entries<N>::positions(m.items);
  programme->positions = positions;
  double largest = 0;
  for (int i = t.thread(); i < positions; i += t.threads()) {
    programme->costs.fill(i, m);
    const double s = std::fabs(m.cut[i].s.h);
    largest = largest < s ? s : largest;
  }
  largest = block_max(t, m.scratch, largest);
  const double first = std::fabs(m.about(0).h), last = std::fabs(m.about(m.items - 1).h);
  programme->scale = Entries<N>::scale(m.cut[positions - 1], first < last ? last : first, largest);
  programme->cut_error = m.cut_error;
  const double value = programme->solve(t, m.scratch, count, args, path, span_of);
  return value - programme->slack;
}

/// The same through all positions.
template <class N, template <class> class Entries>
TX_DEVICE double solve_items(const Thread& t, const TableItems& m, Programme<N, Entries>* programme,
                             int count, uint16_t* args, int32_t* path) {
  const Span all{0, Entries<N>::positions(m.items)};
  return solve_items(t, m, programme, count, args, path, [all](int) { return all; });
}

/// Everything about group k; false for a table without an answer.
template <bool kWeighted>
TX_DEVICE bool read_items(const Thread& t, const LevelTables& p, int64_t k, TableItems* m,
                          double largest = 0) {
  if (!read_values<kWeighted>(t, p, k, m, largest)) return false;
  merge_equal(t, m);
  if (!find_centre<kWeighted>(t, m)) return false;
  sum_items<kWeighted>(t, m);
  return true;
}

}  // namespace torchext::cuda
