// Lower bounds of the cost of levels anywhere in blocks of values, by one block of threads: the
// dynamic programme over blocks with slopes (csrc/kernels/levels/block_layer.h).
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

  /// What layer `layer` charges for a level at the upper end of block r rather than the lower: the
  /// slope of the cost at `k`, the best predecessor, over the block's width. Any number will do.
  TX_DEVICE double rise(int k, int r) const {
    const double width = hi[r] - lo[r];
    if (width == 0) return 0;
    const double t = lo[k] - centre;
    const double y = t * below[k].w.h - below[k].s.h;
    return (y + (below[r].s.h - t * below[r].w.h)) * width;
  }
};

/// A way through the layers: from the first to the last, or back. Layers are numbered as they come,
/// blocks by their place from where it starts.
template <class N>
class BlockBounds {
 public:
  static constexpr int kWords = 14 * Plane<N>::kWords + 2;  // planes

  TX_DEVICE BlockBounds(const Blocks& blocks, bool backward, double* memory, int capacity,
                        uint16_t* arg)
      : blocks_(blocks), backward_(backward), arg_(arg) {
    const auto take = [&](Plane<N>* plane) {
      *plane = Plane<N>::at(memory, capacity);
      memory += static_cast<size_t>(Plane<N>::kWords) * capacity;
    };
    Side left, right;
    // A level in a block starts an interval above the block's values and ends one below them.
    for (int k = 0; k < 2; ++k) {
      for (Plane<N>* plane :
           {&left.u[k], &left.v[k], &left.z[k], &right.u[k], &right.z[k], &base_[k]})
        take(plane);
    }
    for (int k = 0; k < 2; ++k) right.v[k] = left.u[k];
    take(&flat_);
    take(&next_);
    rise_ = memory;
    next_rise_ = memory + capacity;
    left.sign = 1;
    right.sign = -1;
    column_ = backward ? right : left;
    row_ = backward ? left : right;
    left_ = left;
    right_ = right;
  }

  /// Place of item i, and item at place i.
  TX_DEVICE int place(int i) const { return backward_ ? blocks_.items - 1 - i : i; }
  TX_DEVICE Span place(Span items) const {
    return backward_ ? Span{blocks_.items - items.end, blocks_.items - items.begin} : items;
  }

  /// Bounds of all ways to the blocks of each layer: visit(layer, item, bound) for the layers
  /// between the ends. Returns the bound of all ways to the end. rise_of(layer, item) is any
  /// number, the same both ways; span_of(layer) are the items of a layer.
  template <class SpanOf, class RiseOf, class Visit>
  TX_DEVICE double sweep(const Thread& t, double* scratch, int count, const SpanOf& span_of,
                         const RiseOf& rise_of, const Visit& visit) {
    const double scale = fill(t, scratch);
    double steepest = 0;
    slack = 0;
    const int items = blocks_.items;
    Best<N> last = Best<N>::none(0);
    Span columns{0, 1};
    for (int step = 1; step < count; ++step) {
      const bool end = step == count - 1;
      const int layer = backward_ ? count - 1 - step : step;
      const Span rows = end ? Span{items - 1, items} : place(span_of(layer));
      double largest = 0;
      for (int i = columns.begin + t.thread(); i < columns.end; i += t.threads())
        largest = larger(largest, fill_column(i));
      double steep = 0;
      for (int i = rows.begin + t.thread(); i < rows.end; i += t.threads()) {
        next_rise_[i] = end ? 0.0 : rise_of(layer, place(i));
        steep = larger(steep, next_rise_[i]);
      }
      steep = block_max(t, scratch, steep);
      largest = block_max(t, scratch, largest);
      t.sync();
      int passes = 1;
      if (end) {
        last = one_row<N>(t, scratch, columns, row(items - 1));
      } else if (columns.size() == 1) {
        for (int r = rows.begin + t.thread(); r < rows.end; r += t.threads())
          next_.set(r, r < columns.begin ? unreachable() : row(r)(columns.begin));
      } else {
        passes = row_minima(t, rows, columns, 1, arg_, next_, [this](int r) { return row(r); });
      }
      t.sync();
      if (!end) {
        for (int r = rows.begin + t.thread(); r < rows.end; r += t.threads())
          visit(layer, place(r), high(next_[r]));
      }
      slack += minima_noise(passes) *
                   (kError * (scale + steepest + steep + largest) + blocks_.cut_error) +
               0x1p-52 * (largest + steep);
      steepest = steep;
      double* const held = rise_;
      rise_ = next_rise_;
      next_rise_ = held;
      columns = rows;
    }
    return high(last.value);
  }

  /// By how much a bound of the last sweep may be too large.
  double slack;

 private:
  static constexpr double kError = Plane<N>::kWords > 1 ? 0x1p-98 : 8 * 0x1p-53;

  /// The cost of an interval from end i of a column to end j of a row is
  /// z_i + u_i u_j + v_i v_j + z_j, whichever of the two is on the left.
  struct Side {
    Plane<N> u[2], v[2], z[2];  // of the upper end of a block, then the lower
    double sign;                // of the charge at the upper end
  };

  TX_DEVICE static N unreachable() {
    N n;
    from_double(kUnreachable, &n);
    return n;
  }
  TX_DEVICE static N number(double x) {
    N n;
    from_double(x, &n);
    return n;
  }
  TX_DEVICE static double larger(double so_far, double x) {
    const double size = std::fabs(x);
    return size < kUnreachable / 2 && so_far < size ? size : so_far;
  }

  /// What follows from the blocks alone; a bound on the magnitudes in an entry.
  TX_DEVICE double fill(const Thread& t, double* scratch) {
    double largest_sum = 0;
    for (int i = t.thread(); i < blocks_.items; i += t.threads()) {
      const int at = place(i);
      N wb, sb, qb, wa, sa, qa;
      const Cut below = blocks_.below[i], above = blocks_.above[i];
      narrow(below.w, &wb);
      narrow(below.s, &sb);
      narrow(below.q, &qb);
      narrow(above.w, &wa);
      narrow(above.s, &sa);
      narrow(above.q, &qa);
      for (int k = 0; k < 2; ++k) {
        N time;
        narrow(levels::two_sum(k == 0 ? blocks_.hi[i] : blocks_.lo[i], -blocks_.centre), &time);
        left_.u[k].set(at, time);
        left_.v[k].set(at, time * wa - sa);
        left_.z[k].set(at, qa - time * sa);
        right_.u[k].set(at, -(time * wb - sb));
        right_.z[k].set(at, -(qb - time * sb));
      }
      rise_[at] = 0;
      largest_sum = larger(larger(largest_sum, below.s.h), above.s.h);
    }
    if (t.thread() == 0) next_.set(0, number(0));  // the first level is the first item
    largest_sum = block_max(t, scratch, largest_sum);
    t.sync();
    const Cut all = blocks_.above[blocks_.items - 1];
    return 2 * (all.q.h + blocks_.radius * (2 * largest_sum + blocks_.radius * all.w.h));
  }

  /// A block of the layer before with the bound of all ways to it; returns what it adds.
  TX_DEVICE double fill_column(int i) {
    const double charge = column_.sign * rise_[i];
    base_[0].set(i, (column_.z[0][i] + number(charge)) + next_[i]);
    base_[1].set(i, column_.z[1][i] + next_[i]);
    const N flat = number(charge < 0 ? charge : 0.0) + next_[i];
    flat_.set(i, flat);
    return high(flat);
  }

  /// Entries of row r: the smallest of the four corners; a level in the same block costs nothing.
  TX_DEVICE auto row(int r) const {
    const double charge = row_.sign * next_rise_[r];
    const N u0 = row_.u[0][r], u1 = row_.u[1][r], v0 = row_.v[0][r], v1 = row_.v[1][r];
    const N z0 = row_.z[0][r] + number(charge), z1 = row_.z[1][r];
    const N own = number(charge < 0 ? charge : 0.0);
    return [this, r, u0, u1, v0, v1, z0, z1, own](int c) {
      if (c == r) return flat_[c] + own;
      const N p0 = base_[0][c], q0 = column_.u[0][c], s0 = column_.v[0][c];
      const N p1 = base_[1][c], q1 = column_.u[1][c], s1 = column_.v[1][c];
      const N a = (p0 + q0 * u0) + s0 * v0, b = (p1 + q1 * u0) + s1 * v0;
      const N d = (p0 + q0 * u1) + s0 * v1, e = (p1 + q1 * u1) + s1 * v1;
      const N one = (a < b ? a : b) + z0, two = (d < e ? d : e) + z1;
      return one < two ? one : two;
    };
  }

  const Blocks blocks_;
  const bool backward_;
  uint16_t* const arg_;
  Side left_, right_, column_, row_;
  Plane<N> base_[2], flat_, next_;
  double *rise_, *next_rise_;
};

}  // namespace torchext::cuda
