// Lower bounds of the cost of cells whose borders may lie anywhere in bins, by one block of
// threads.
//
// A border in a bin leaves the values of the bin out of both its cells; what remains of a cell
// costs no more than all of it (csrc/kernels/levels/block_layer.h). In double-double: beside values
// far away plain double would decide too little.
#pragma once

#include "block.cuh"
#include "programme.cuh"

namespace torchext::cuda {

class CellBounds {
  using N = DD;
  using Sums = Cells<N>;

  TX_DEVICE static N between(const Sums& from, int c, N w, N s, N q) {
    return Sums::cost(w - from.w[c], s - from.s[c], q - from.q[c]);
  }
  /// Entries of row r. Two borders in one bin: nothing is between them.
  TX_DEVICE auto row(int r) const {
    const N w = below_.w[r], s = below_.s[r], q = below_.q[r];
    return [this, r, w, s, q](int c) {
      const N base = base_[c];
      return c == r ? base : base + between(above_, c, w, s, q);
    };
  }

 public:
  static constexpr int kWords = 8 * Plane<N>::kWords;  // planes

  /// Bins [items] from lo to hi, `cut` the sums below each. `memory`: kWords planes of `capacity`.
  TX_DEVICE CellBounds(const double* lo, const double* hi, const levels::Cut* cut, int items,
                       double* memory, int capacity, uint16_t* arg)
      : lo_(lo), hi_(hi), cut_(cut), items_(items), arg_(arg) {
    Plane<N>* const planes[] = {&above_.w, &above_.s, &above_.q, &below_.w,
                                &below_.s, &below_.q, &base_,    &next_};
    for (Plane<N>* plane : planes) {
      *plane = Plane<N>::at(memory, capacity);
      memory += static_cast<size_t>(Plane<N>::kWords) * capacity;
    }
  }

  /// No `levels` cells cost less than what is returned, but for the rounding in `slack`. `scale`
  /// and `cut_error`: of an entry.
  TX_DEVICE double sweep(const Thread& t, double* scratch, int levels, double scale,
                         double cut_error) {
    for (int i = t.thread(); i < items_; i += t.threads()) {
      put(below_, i, cut_[i]);
      put(above_, i, cut_[i + (lo_[i] == hi_[i] ? 0 : 1)]);  // no value is cut in two
    }
    t.sync();
    slack = 0;
    const levels::Cut none = cut_[0], all = cut_[items_];
    if (levels == 1) {
      add_slack(1, scale, cut_error);
      return Sums::cost(all.w - none.w, all.s - none.s, all.q - none.q).h;
    }
    for (int r = t.thread(); r < items_; r += t.threads())
      next_.set(r, Sums::cost(below_.w[r] - none.w, below_.s[r] - none.s, below_.q[r] - none.q));
    t.sync();
    add_slack(1, scale, cut_error);
    const Span bins{0, items_};
    for (int layer = 2; layer < levels; ++layer) {
      swap_rows();
      const int passes =
          row_minima(t, bins, bins, 1, arg_, next_, [this](int r) { return row(r); });
      add_slack(passes, scale + base_.h[items_ - 1], cut_error);  // bounds grow along a layer
    }
    swap_rows();
    const Best<N> last = one_row<N>(t, scratch, bins, [&](int c) {
      return base_[c] + between(above_, c, all.w, all.s, all.q);
    });
    add_slack(1, scale + base_.h[items_ - 1], cut_error);
    return last.value.h;
  }

  double slack;

 private:
  TX_DEVICE static void put(const Sums& sums, int i, const levels::Cut& c) {
    sums.w.set(i, c.w);
    sums.s.set(i, c.s);
    sums.q.set(i, c.q);
  }
  TX_DEVICE void swap_rows() {
    const Plane<N> held = base_;
    base_ = next_;
    next_ = held;
  }
  TX_DEVICE void add_slack(int passes, double scale, double cut_error) {
    slack += minima_noise(passes) * (0x1p-98 * scale + cut_error);
  }

  const double *const lo_, *const hi_;
  const levels::Cut* const cut_;
  const int items_;
  uint16_t* const arg_;
  Sums above_, below_;    // a border in a bin: what lies above it, what below
  Plane<N> base_, next_;  // bounds of the layer before, and of this one
};

}  // namespace torchext::cuda
