// Lower bounds of the cost of levels anywhere in blocks of values, and of cells whose borders may
// lie anywhere in them, by one block of threads: the dynamic programme over blocks with slopes
// (csrc/kernels/levels/block_layer.h; docs/cuda.md for cells).
#pragma once

#include "block.cuh"
#include "items.cuh"

namespace torchext::cuda {

/// Blocks of values in ascending order, with the sums below and above each.
struct Blocks {
  const double *lo, *hi;
  const Cut *below, *above;
  int items;
  double centre, radius, cut_error;

  TX_DEVICE DD about(double value) const { return levels::two_sum(value, -centre); }
};

/// The planes of one side of an interval: [0] where its end is the upper end of a block, [1] the
/// lower. `sign`: of the charge at the upper end.
template <class N>
struct Side {
  Plane<N> a[2], b[2], c[2];
  double sign;
};

/// A number that can be compared, and is larger than all that matter.
template <class N>
TX_DEVICE N number(double x) {
  N n;
  from_double(x, &n);
  return n;
}
TX_DEVICE double larger(double so_far, double x) {
  const double size = std::fabs(x);
  return size < kUnreachable / 2 && so_far < size ? size : so_far;
}

/// Intervals between levels in blocks; the values of both blocks are left out. The cost from end i
/// of a column to end j of a row is c_i + a_i a_j + b_i b_j + c_j, whichever of the two is on the
/// left.
template <class N>
struct LevelCosts {
  static constexpr int kPlanes = 10, kBefore = 0;  // positions before the first block and behind
  Side<N> left, right;

  template <class Take>
  TX_DEVICE void place(const Take& take) {
    for (int k = 0; k < 2; ++k)
      for (Plane<N>* plane : {&left.a[k], &left.b[k], &left.c[k], &right.a[k], &right.c[k]})
        take(plane);
    for (int k = 0; k < 2; ++k) right.b[k] = left.a[k];
  }

  /// The slope of the cost at `k`, the best predecessor, over the width of block r.
  TX_DEVICE static double rise(const Blocks& blocks, int k, int r) {
    const double width = blocks.hi[r] - blocks.lo[r];
    if (width == 0) return 0;
    const double t = blocks.lo[k] - blocks.centre;
    const double y = t * blocks.below[k].w.h - blocks.below[k].s.h;
    return (y + (blocks.below[r].s.h - t * blocks.below[r].w.h)) * width;
  }

  /// What follows from the blocks alone; a bound on the magnitudes in an entry.
  template <class PlaceOf>
  TX_DEVICE double fill(const Thread& t, double* scratch, const Blocks& blocks,
                        const PlaceOf& place_of) const {
    double largest_sum = 0;
    for (int i = t.thread(); i < blocks.items; i += t.threads()) {
      const int at = place_of(i);
      N wb, sb, qb, wa, sa, qa;
      const Cut below = blocks.below[i], above = blocks.above[i];
      narrow(below.w, &wb);
      narrow(below.s, &sb);
      narrow(below.q, &qb);
      narrow(above.w, &wa);
      narrow(above.s, &sa);
      narrow(above.q, &qa);
      for (int k = 0; k < 2; ++k) {
        N time;
        narrow(blocks.about(k == 0 ? blocks.hi[i] : blocks.lo[i]), &time);
        left.a[k].set(at, time);
        left.b[k].set(at, time * wa - sa);
        left.c[k].set(at, qa - time * sa);
        right.a[k].set(at, -(time * wb - sb));
        right.c[k].set(at, -(qb - time * sb));
      }
      largest_sum = larger(larger(largest_sum, below.s.h), above.s.h);
    }
    largest_sum = block_max(t, scratch, largest_sum);
    const Cut all = blocks.above[blocks.items - 1];
    return 2 * (all.q.h + blocks.radius * (2 * largest_sum + blocks.radius * all.w.h));
  }

  /// End k of a column, with the bound of all ways to it and its charge.
  TX_DEVICE static N base(const Side<N>& column, int k, int i, N value) {
    return column.c[k][i] + value;
  }

  /// Entries of row r: the smallest of the four corners. `charge`: of its upper end.
  TX_DEVICE static auto row(const Side<N>& column, const Side<N>& row, const Plane<N>* base, int r,
                            N charge) {
    const N u0 = row.a[0][r], u1 = row.a[1][r], v0 = row.b[0][r], v1 = row.b[1][r];
    const N z0 = row.c[0][r] + charge, z1 = row.c[1][r];
    return [&column, base, u0, u1, v0, v1, z0, z1](int c) {
      const N p0 = base[0][c], q0 = column.a[0][c], s0 = column.b[0][c];
      const N p1 = base[1][c], q1 = column.a[1][c], s1 = column.b[1][c];
      const N a = (p0 + q0 * u0) + s0 * v0, b = (p1 + q1 * u0) + s1 * v0;
      const N d = (p0 + q0 * u1) + s0 * v1, e = (p1 + q1 * u1) + s1 * v1;
      const N one = (a < b ? a : b) + z0, two = (d < e ? d : e) + z1;
      return one < two ? one : two;
    };
  }
};

/// Cells between borders in blocks. The values of a border's block that belong to a cell are moved
/// to the end of the block that is nearer to the cell, which makes it no dearer; by how many there
/// are the cost is concave, so all or none are the worst. Planes are sums of weights, their first
/// and second moments, below a cell's end and, negated, below its start. The start of the first
/// cell and the end of the last are positions of their own.
template <class N>
struct CellCosts {
  static constexpr int kPlanes = 12, kBefore = 1;
  Side<N> left, right;

  template <class Take>
  TX_DEVICE void place(const Take& take) {
    for (int k = 0; k < 2; ++k)
      for (Plane<N>* plane :
           {&left.a[k], &left.b[k], &left.c[k], &right.a[k], &right.b[k], &right.c[k]})
        take(plane);
  }

  /// What block r adds to the cell that starts below block `k` and ends there.
  TX_DEVICE static double rise(const Blocks& blocks, int k, int r) {
    if (blocks.lo[r] == blocks.hi[r]) return 0;
    const Cut &from = blocks.below[k], &to = blocks.below[r];
    const double t = blocks.lo[r] - blocks.centre, m = (blocks.above[r].w - to.w).h;
    const double w = (to.w - from.w).h, s = (to.s - from.s).h, q = (to.q - from.q).h;
    return Cells<double>::cost(w + m, s + m * t, q + m * t * t) - Cells<double>::cost(w, s, q);
  }

  template <class PlaceOf>
  TX_DEVICE double fill(const Thread& t, double* scratch, const Blocks& blocks,
                        const PlaceOf& place_of) const {
    double sums = 0, squares = 0;
    const Cut all = blocks.above[blocks.items - 1];
    for (int i = t.thread() - 1; i <= blocks.items; i += t.threads()) {
      Cut start[2], end[2];  // sums below
      if (i < 0 || i == blocks.items) {
        start[0] = start[1] = end[0] = end[1] = i < 0 ? Cut{} : all;
      } else {
        const bool single = blocks.lo[i] == blocks.hi[i];  // no value is cut in two
        const Cut below = blocks.below[i], above = single ? below : blocks.above[i];
        const DD lo = blocks.about(blocks.lo[i]), hi = blocks.about(blocks.hi[i]);
        const DD m = above.w - below.w, at_lo = m * lo, at_hi = m * hi;
        start[0] = above;
        start[1] = {above.w - m, above.s - at_hi, above.q - at_hi * hi};
        end[0] = {below.w + m, below.s + at_lo, below.q + at_lo * lo};
        end[1] = below;
      }
      for (int k = 0; k < 2; ++k) {
        put(left, k, place_of(i), {-start[k].w, -start[k].s, -start[k].q});
        put(right, k, place_of(i), end[k]);
        sums = larger(larger(sums, start[k].s.h), end[k].s.h);
        squares = larger(larger(squares, start[k].q.h), end[k].q.h);
      }
    }
    sums = block_max(t, scratch, sums);
    squares = block_max(t, scratch, squares);
    return levels::cluster_scale(squares, all.w.h, blocks.radius, sums);
  }

  TX_DEVICE static N base(const Side<N>&, int, int, N value) { return value; }

  TX_DEVICE static auto row(const Side<N>& column, const Side<N>& row, const Plane<N>* base, int r,
                            N charge) {
    const N w0 = row.a[0][r], s0 = row.b[0][r], q0 = row.c[0][r];
    const N w1 = row.a[1][r], s1 = row.b[1][r], q1 = row.c[1][r];
    return [&column, base, charge, w0, s0, q0, w1, s1, q1](int c) {
      N least = number<N>(kUnreachable);
      for (int k = 0; k < 2; ++k) {
        const N w = column.a[k][c], s = column.b[k][c], q = column.c[k][c];
        const N one = base[k][c] + (Cells<N>::cost(w0 + w, s0 + s, q0 + q) + charge);
        const N two = base[k][c] + Cells<N>::cost(w1 + w, s1 + s, q1 + q);
        least = one < least ? one : least;
        least = two < least ? two : least;
      }
      return least;
    };
  }

 private:
  TX_DEVICE static void put(const Side<N>& side, int k, int at, const Cut& cut) {
    N sum;
    narrow(cut.w, &sum);
    side.a[k].set(at, sum);
    narrow(cut.s, &sum);
    side.b[k].set(at, sum);
    narrow(cut.q, &sum);
    side.c[k].set(at, sum);
  }
};

/// A way through the layers: from the first to the last, or back. Layers are numbered as they come,
/// positions by their place from where it starts. What layer i charges for the upper end of a block
/// rather than the lower, in proportion between them, it gives back to the next interval.
template <class N, template <class> class Costs>
class BlockBounds {
 public:
  static constexpr int kWords = (Costs<N>::kPlanes + 4) * Plane<N>::kWords + 2;  // planes

  TX_DEVICE BlockBounds(const Blocks& blocks, bool backward, double* memory, int capacity,
                        uint16_t* arg)
      : blocks_(blocks),
        backward_(backward),
        positions_(blocks.items + 2 * Costs<N>::kBefore),
        arg_(arg) {
    const auto take = [&](Plane<N>* plane) {
      *plane = Plane<N>::at(memory, capacity);
      memory += static_cast<size_t>(Plane<N>::kWords) * capacity;
    };
    costs_.place(take);
    for (Plane<N>* plane : {&base_[0], &base_[1], &flat_, &next_}) take(plane);
    rise_ = memory;
    next_rise_ = memory + capacity;
    costs_.left.sign = 1;
    costs_.right.sign = -1;
    column_ = backward ? costs_.right : costs_.left;
    row_ = backward ? costs_.left : costs_.right;
  }

  /// Place of item i, and item at place p.
  TX_DEVICE int place(int i) const {
    return backward_ ? positions_ - 1 - Costs<N>::kBefore - i : Costs<N>::kBefore + i;
  }
  TX_DEVICE int item(int p) const {
    return (backward_ ? positions_ - 1 - p : p) - Costs<N>::kBefore;
  }
  TX_DEVICE Span place(Span items) const {
    return backward_ ? Span{place(items.end) + 1, place(items.begin) + 1}
                     : Span{place(items.begin), place(items.end)};
  }

  /// Bounds of all ways to the blocks of each layer: visit(layer, item, bound) for the layers
  /// between the ends. Returns the bound of all ways to the end. rise_of(layer, item) is any
  /// number, the same both ways; span_of(layer) are the items of a layer. `count`: layers.
  template <class SpanOf, class RiseOf, class Visit>
  TX_DEVICE double sweep(const Thread& t, double* scratch, int count, const SpanOf& span_of,
                         const RiseOf& rise_of, const Visit& visit) {
    const double scale = costs_.fill(t, scratch, blocks_, [this](int i) { return place(i); });
    if (t.thread() == 0) {
      next_.set(0, number<N>(0));
      rise_[0] = 0;
    }
    t.sync();
    double steepest = 0;
    slack = 0;
    Span columns{0, 1};
    for (int step = 1; step < count; ++step) {
      const bool end = step == count - 1;
      const int layer = backward_ ? count - 1 - step : step;
      const Span rows = end ? Span{positions_ - 1, positions_} : place(span_of(layer));
      double largest = 0, steep = 0;
      for (int i = columns.begin + t.thread(); i < columns.end; i += t.threads())
        largest = larger(largest, fill_column(i));
      for (int i = rows.begin + t.thread(); i < rows.end; i += t.threads()) {
        next_rise_[i] = end ? 0.0 : rise_of(layer, item(i));
        steep = larger(steep, next_rise_[i]);
      }
      steep = block_max(t, scratch, steep);
      largest = block_max(t, scratch, largest);
      t.sync();
      int passes = 1;
      if (rows.size() == 1) {
        const int r = rows.begin;
        const Span before{columns.begin, columns.end < r ? columns.end : r};
        const Best<N> best = one_row<N>(t, scratch, before, row(r));
        if (t.thread() == 0) next_.set(r, best.value);
      } else if (columns.size() == 1) {
        for (int r = rows.begin + t.thread(); r < rows.end; r += t.threads())
          next_.set(r, r > columns.begin ? row(r)(columns.begin) : number<N>(kUnreachable));
      } else {
        passes = row_minima(t, rows, columns, 0, arg_, next_, [this](int r) { return row(r); });
      }
      t.sync();
      for (int r = rows.begin + t.thread(); r < rows.end; r += t.threads()) {
        if (columns.begin <= r && r < columns.end) {  // both in one block: nothing is between
          const N both = flat_[r] + number<N>(lower_charge(row_.sign * next_rise_[r]));
          if (both < next_[r]) next_.set(r, both);
        }
        if (!end) visit(layer, item(r), high(next_[r]));
      }
      t.sync();
      slack += minima_noise(passes) *
                   (kError * (scale + steepest + steep + largest) + blocks_.cut_error) +
               0x1p-52 * (largest + steep);
      steepest = steep;
      double* const held = rise_;
      rise_ = next_rise_;
      next_rise_ = held;
      columns = rows;
    }
    return high(next_[positions_ - 1]);
  }

  /// By how much a bound of the last sweep may be too large.
  double slack;

 private:
  static constexpr double kError = Plane<N>::kWords > 1 ? 0x1p-98 : 8 * 0x1p-53;

  TX_DEVICE static double lower_charge(double charge) { return charge < 0 ? charge : 0.0; }

  /// A block of the layer before with the bound of all ways to it; returns what it adds.
  TX_DEVICE double fill_column(int i) {
    const double charge = column_.sign * rise_[i];
    base_[0].set(i, Costs<N>::base(column_, 0, i, number<N>(charge)) + next_[i]);
    base_[1].set(i, Costs<N>::base(column_, 1, i, next_[i]));
    const N flat = number<N>(lower_charge(charge)) + next_[i];
    flat_.set(i, flat);
    return high(flat);
  }

  TX_DEVICE auto row(int r) const {
    return Costs<N>::row(column_, row_, base_, r, number<N>(row_.sign * next_rise_[r]));
  }

  const Blocks blocks_;
  const bool backward_;
  const int positions_;
  uint16_t* const arg_;
  Costs<N> costs_;
  Side<N> column_, row_;
  Plane<N> base_[2], flat_, next_;
  double *rise_, *next_rise_;
};

}  // namespace torchext::cuda
