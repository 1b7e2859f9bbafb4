// The dynamic programme of optimal levels by one block of threads: layer after layer of row minima.
//
// Entries, layers and ties are those of csrc/kernels/levels/path.h; the first argmin wins.
// Positions are items (stochastic rounding: the levels of a path) or the cuts between them, both
// ends included (nearest: the borders of its cells).
#pragma once

#include "../launch.h"
#include "kernels/levels/interval.h"

namespace torchext::cuda {

using levels::DD;

/// The minimum of a row without columns, as on the CPU.
constexpr double kUnreachable = 0x1p1000;

/// An array of numbers: doubles, or double-doubles with their words apart.
template <class N>
struct Plane;

template <>
struct Plane<double> {
  static constexpr int kWords = 1;
  double* h;
  TX_DEVICE static Plane at(double* memory, int) { return {memory}; }
  TX_DEVICE double operator[](int i) const { return h[i]; }
  TX_DEVICE void set(int i, double x) const { h[i] = x; }
};

template <>
struct Plane<DD> {
  static constexpr int kWords = 2;
  double *h, *l;
  TX_DEVICE static Plane at(double* memory, int size) { return {memory, memory + size}; }
  TX_DEVICE DD operator[](int i) const { return {h[i], l[i]}; }
  TX_DEVICE void set(int i, DD x) const {
    h[i] = x.h;
    l[i] = x.l;
  }
};

TX_DEVICE void from_double(double x, double* out) { *out = x; }
TX_DEVICE void from_double(double x, DD* out) { *out = DD{x, 0}; }
TX_DEVICE void narrow(DD x, double* out) { *out = x.h; }
TX_DEVICE void narrow(DD x, DD* out) { *out = x; }
TX_DEVICE double high(double x) { return x; }
TX_DEVICE double high(DD x) { return x.h; }
TX_DEVICE double shuffle_xor(const Thread& t, double x, int mask) { return t.shuffle_xor(x, mask); }
TX_DEVICE DD shuffle_xor(const Thread& t, DD x, int mask) {
  return {t.shuffle_xor(x.h, mask), t.shuffle_xor(x.l, mask)};
}

/// A minimum and the first column that attains it.
template <class N>
struct Best {
  N value;
  int32_t column;

  TX_DEVICE static Best none(int32_t column) {
    Best b;
    from_double(kUnreachable, &b.value);
    b.column = column;
    return b;
  }
  TX_DEVICE void offer(N v, int32_t at) {  // columns come in ascending order
    if (v < value) {
      value = v;
      column = at;
    }
  }
  /// The better of two lanes', in both.
  TX_DEVICE void join(const Thread& t, int mask) {
    const N v = shuffle_xor(t, value, mask);
    const int32_t at = t.shuffle_xor(column, mask);
    if (v < value || (!(value < v) && at < column)) {
      value = v;
      column = at;
    }
  }
};

/// Consecutive items.
struct Span {
  int begin, end;
  TX_DEVICE int size() const { return end - begin; }
};

/// Minima of `rows` to `next`, their first argmins among `columns` to `arg`; row r has the columns
/// below r + extra, and row_of(r) gives its entries. Coarse to fine: the argmins of every other row
/// bound those between, a group of lanes a row. Returns the number of passes.
template <class N, class RowOf>
TX_DEVICE int row_minima(const Thread& thread, Span rows, Span columns, int extra, uint16_t* arg,
                         const Plane<N>& next, const RowOf& row_of) {
  const int items = rows.size();
  int stride = 1, passes = 0;
  while (2 * stride <= items) stride *= 2;
  for (; stride > 0; stride /= 2, ++passes) {
    const int live_rows = (items - stride) / (2 * stride) + 1;
    int width = 32;  // lanes of a group
    while (width > 1 && width * live_rows > thread.threads()) width /= 2;
    const int lane = thread.thread() % width, groups = thread.threads() / width;
    for (int k0 = 0; k0 < live_rows; k0 += groups) {
      const int k = k0 + thread.thread() / width, at = stride - 1 + 2 * stride * k;
      const int r = rows.begin + at;
      const bool live = k < live_rows;
      const int c0 = live && at >= stride ? arg[r - stride] : columns.begin;
      Best<N> best = Best<N>::none(c0);
      if (live) {
        int c1 = at + stride < items ? arg[r + stride] + 1 : columns.end;
        c1 = c1 <= c0 ? c0 + 1 : c1;  // rounding may have put argmins out of order
        c1 = c1 > r + extra ? r + extra : c1;
        const auto entry = row_of(r);
        for (int c = c0 + lane; c < c1; c += width) best.offer(entry(c), c);
      }
      for (int mask = width / 2; mask > 0; mask /= 2) best.join(thread, mask);
      if (live && lane == 0) {
        arg[r] = static_cast<uint16_t>(best.column);
        next.set(r, best.value);
      }
    }
    thread.sync();
  }
  return passes;
}

/// The minimum of one row over `columns`, in all threads.
template <class N, class Entry>
TX_DEVICE Best<N> one_row(const Thread& thread, double* scratch, Span columns, const Entry& entry) {
  Best<N> best = Best<N>::none(columns.begin);
  for (int c = columns.begin + thread.thread(); c < columns.end; c += thread.threads())
    best.offer(entry(c), c);
  for (int mask = 16; mask > 0; mask /= 2) best.join(thread, mask);
  auto* parts = reinterpret_cast<Best<N>*>(scratch);
  thread.sync();
  if (thread.lane() == 0) parts[thread.warp()] = best;
  thread.sync();
  best = parts[0];
  for (int w = 1; w < thread.threads() / 32; ++w) {
    const Best<N> other = parts[w];
    if (other.value < best.value || (!(best.value < other.value) && other.column < best.column))
      best = other;
  }
  return best;
}

/// By how many errors of an entry a minimum may be wrong: a wrong argmin of one pass costs up to
/// two errors in each pass after it.
TX_DEVICE double minima_noise(int passes) { return 2 * passes + 1; }

/// Intervals between two levels that are items. The cost from item c to item r is
/// (base_c + t_c x_r) + y_c t_r - g_r, where base_c is g_c + the cost of the best way to c, x = -y.
template <class N>
struct Ends {
  static constexpr bool kStochastic = true;
  using Number = N;
  Plane<N> t, y, g;  // t, Y = t W - S, G = Q - t S

  TX_DEVICE static int positions(int items) { return items; }
  template <class Items>
  TX_DEVICE void fill(int i, const Items& items) const {
    const levels::Cut& c = items.cut[i];
    N time, w, s, q;
    narrow(items.about(i), &time);
    narrow(c.w, &w);
    narrow(c.s, &s);
    narrow(c.q, &q);
    t.set(i, time);
    y.set(i, time * w - s);
    g.set(i, q - time * s);
  }
  TX_DEVICE static double scale(const levels::Cut& all, double reach, double largest_sum) {
    return levels::entry_scale(all, reach, largest_sum);
  }
  TX_DEVICE N base(int i, N value) const { return g[i] + value; }
  TX_DEVICE N value(int r, N minimum) const { return minimum + -g[r]; }
  TX_DEVICE auto row(const Plane<N>& base, int r) const {
    const N x = -y[r], y_of_row = t[r];
    return [this, &base, x, y_of_row](int c) { return (base[c] + t[c] * x) + y[c] * y_of_row; };
  }
};

/// Cells between two cuts, rounded to their means: base_c + (Q_r - Q_c) - (S_r - S_c)^2 / (W_r -
/// W_c).
template <class N>
struct Cells {
  static constexpr bool kStochastic = false;
  using Number = N;
  Plane<N> w, s, q;  // sums below a cut

  TX_DEVICE static int positions(int items) { return items + 1; }
  template <class Items>
  TX_DEVICE void fill(int i, const Items& items) const {
    const levels::Cut& c = items.cut[i];
    N sum;
    narrow(c.w, &sum);
    w.set(i, sum);
    narrow(c.s, &sum);
    s.set(i, sum);
    narrow(c.q, &sum);
    q.set(i, sum);
  }
  TX_DEVICE static double scale(const levels::Cut& all, double reach, double largest_sum) {
    return levels::cluster_scale(all.q.h, all.w.h, reach, largest_sum);
  }
  TX_DEVICE N base(int, N value) const { return value; }
  TX_DEVICE N value(int, N minimum) const { return minimum; }
  /// From the sums of a cell. Not the difference if that is NaN: the weights were lost to rounding.
  TX_DEVICE static N cost(N weight, N sum, N squares) {
    N zero;
    from_double(0, &zero);
    const N cost = squares - sum * sum / weight;
    return zero < cost ? cost : zero;
  }
  TX_DEVICE auto row(const Plane<N>& base, int r) const {
    const N w_of_row = w[r], s_of_row = s[r], q_of_row = q[r];
    return [this, &base, w_of_row, s_of_row, q_of_row](int c) {
      return base[c] + cost(w_of_row - w[c], s_of_row - s[c], q_of_row - q[c]);
    };
  }
};

template <class N, template <class> class Entries = Ends>
struct Programme {
  /// Planes in `memory`.
  static constexpr int kPlanes = 5;
  using Costs = Entries<N>;

  Costs costs;
  Plane<N> base, next;  // of the best way to a position: what entries start from; row minima
  uint16_t* arg;        // argmins of the layer in work
  int positions, capacity;
  double scale, cut_error;  // of an entry, of its sums
  double slack;             // no path costs less than the value found - slack

  TX_DEVICE static Programme at(double* memory, uint16_t* arg, int capacity) {
    constexpr int kWords = Plane<N>::kWords;
    const auto plane = [&](int k) {
      return Plane<N>::at(memory + static_cast<size_t>(k) * kWords * capacity, capacity);
    };
    return {{plane(0), plane(1), plane(2)}, plane(3), plane(4), arg, 0, capacity, 0, 0, 0};
  }

  /// The entries of row r.
  TX_DEVICE auto row(int r) const { return costs.row(base, r); }

  /// The cheapest path of `count` positions, 2 <= count < positions, to path [count]; returns its
  /// cost. Position i of it, 0 < i < count - 1, is one of span_of(i). Argmins of the layers between
  /// are kept in args [count - 3][capacity].
  template <class SpanOf>
  TX_DEVICE double solve(const Thread& thread, double* scratch, int count, uint16_t* args,
                         int32_t* path, const SpanOf& span_of) {
    slack = 0;
    N nothing;
    from_double(0, &nothing);
    if (thread.thread() == 0) base.set(0, costs.base(0, nothing));
    thread.sync();
    double largest = 0;
    Span columns{0, 1};
    if (count > 2) {
      columns = span_of(1);
      for (int r = columns.begin + thread.thread(); r < columns.end; r += thread.threads()) {
        N v;
        from_double(kUnreachable, &v);
        if (r > 0) v = row(r)(0);
        next.set(r, v);
      }
      thread.sync();
      largest = finish_layer(thread, columns, 1, largest);
    }
    for (int layer = 2; layer < count - 1; ++layer) {
      const Span rows = span_of(layer);
      const int passes =
          row_minima(thread, rows, columns, 0, arg, next, [this](int r) { return row(r); });
      uint16_t* kept = args + static_cast<size_t>(layer - 2) * capacity;
      for (int r = rows.begin + thread.thread(); r < rows.end; r += thread.threads())
        kept[r] = arg[r];
      largest = finish_layer(thread, rows, passes, largest);
      columns = rows;
    }
    if (columns.end == positions) --columns.end;
    const Best<N> last = one_row<N>(thread, scratch, columns, row(positions - 1));
    add_slack(1, largest);
    if (thread.thread() == 0) {
      path[count - 1] = positions - 1;
      path[count - 2] = last.column;
      for (int layer = count - 2; layer > 1; --layer)
        path[layer - 1] = args[static_cast<size_t>(layer - 2) * capacity + path[layer]];
      path[0] = 0;
    }
    thread.sync();
    return high(costs.value(positions - 1, last.value));
  }

 private:
  TX_DEVICE void add_slack(int passes, double largest) {
    constexpr double kError = Plane<N>::kWords > 1 ? 0x1p-98 : 8 * 0x1p-53;
    slack += minima_noise(passes) * (kError * (scale + largest) + cut_error);
  }

  /// Row minima become the costs of the ways to the rows, and those the columns of the next layer.
  /// Returns the largest of them, which is the last.
  TX_DEVICE double finish_layer(const Thread& thread, Span rows, int passes, double largest) {
    add_slack(passes, largest);
    const double last = high(costs.value(rows.end - 1, next[rows.end - 1]));
    for (int r = rows.begin + thread.thread(); r < rows.end; r += thread.threads())
      base.set(r, costs.base(r, costs.value(r, next[r])));
    thread.sync();
    const double size = last < 0 ? -last : last;
    return last < kUnreachable ? size : 0.0;
  }
};

}  // namespace torchext::cuda
