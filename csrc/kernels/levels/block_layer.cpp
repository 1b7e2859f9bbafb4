#include "block_layer.h"

#include <algorithm>
#include <cmath>

namespace torchext::levels {
namespace {

double largest(const Plane& p, size_t n) {
  double m = 0;
  for (size_t i = 0; i < n; ++i) {
    const double a = std::fabs(p.h[i]);
    m = a < kUnreachable / 2 ? std::max(m, a) : m;
  }
  return m;
}

DD sum(DD a, DD b, bool precise) { return precise ? a + b : DD{a.h + b.h, 0}; }

void set3(Plane* planes, size_t i, DD a, DD b, DD c) {
  planes[0].set(i, a);
  planes[1].set(i, b);
  planes[2].set(i, c);
}

void set_ends(Plane* planes, size_t i, DD t, const Cut& cut, bool left) {
  const DD y = t * cut.w - cut.s, g = cut.q - t * cut.s;
  set3(planes, i, t, left ? y : -y, left ? g : -g);
}

}  // namespace

void BlockLayer::fill(const Axis& axis, Objective objective, bool start) {
  objective_ = objective;
  cut_error_ = axis.cut_error;
  total_ = axis.total();
  radius_ =
      std::max(std::fabs(axis.about(axis.lo.front()).h), std::fabs(axis.about(axis.hi.back()).h));
  const size_t n = size();
  for (auto* group : {out_[0], out_[1], in_[0], in_[1], middle_})
    for (int k = 0; k < 3; ++k) group[k].resize(n);
  for (Plane* p : {&reach, &forward, &backward}) p->resize(n);
  width_.assign(n, 0.0);
  slope_.assign(n, 0.0);
  from.resize(n);
  highest_.resize(n);
  for (size_t i = 0; i < n; ++i) {
    const Block& b = blocks[i];
    const Cut &below = axis.cut[b.lo], &at = axis.cut[b.middle()];
    if (ends()) {
      highest_[i] = b.hi + 1;
      const DD lo = axis.about(axis.lo[b.lo]), hi = axis.about(axis.hi[b.hi]);
      set_ends(out_[0], i, hi, axis.cut[b.hi + 1], true);
      set_ends(out_[1], i, lo, axis.cut[b.hi + 1], true);
      set_ends(in_[0], i, lo, below, false);
      set_ends(in_[1], i, hi, below, false);
      set_ends(middle_, i, axis.about(axis.lo[b.middle()]), at, true);
      width_[i] = (hi - lo).h;
    } else {
      // A break lies below a single value, but anywhere in a bin.
      highest_[i] = b.hi + (axis.binned && !start && b.hi < axis.size() && !axis.single(b.hi) ? 1 : 0);
      const Cut& above = axis.cut[highest_[i]];
      set3(out_[0], i, above.w, above.s, above.q);
      set3(in_[0], i, below.w, below.s, below.q);
      set3(middle_, i, at.w, at.s, at.q);
    }
  }
}

void BlockLayer::set_slopes(const Axis& axis, const BlockLayer& before) {
  if (!ends()) return;
  for (size_t i = 0; i < size(); ++i) {
    if (width_[i] == 0) continue;
    // dC/dv_j of the interval between the middles: S - t_k n.
    const uint32_t k = from[i];
    const Cut& at = axis.cut[blocks[i].middle()];
    slope_[i] = (before.middle_[1][k] + (at.s - before.middle_[0][k] * at.w)).h;
    const DD rise = two_prod(slope_[i], width_[i]);
    out_[0][2].set(i, out_[0][2][i] + rise);
    in_[1][2].set(i, in_[1][2][i] - rise);
  }
}

PassReport BlockLayer::pass(RowMinimaFn* row_minima, int columns, int rows, size_t n, size_t m, bool precise,
                            bool overlaps, PassScratch* s) const {
  TileColumns c{};
  TileRows r{};
  for (int k = 0; k < columns; ++k) {
    c.a[k] = s->column[k].h.data();
    c.low[k] = s->column[k].l.data();
  }
  for (int k = 0; k < rows; ++k) {
    r.a[k] = s->row[k].h.data();
    r.low[k] = s->row[k].l.data();
  }
  if (overlaps) {
    c.z = s->column_z.h.data();
    c.z_low = s->column_z.l.data();
    r.z = s->row_z.h.data();
    r.z_low = s->row_z.l.data();
  }
  r.ready = s->ready.data();
  r.end = overlaps ? s->end.data() : s->ready.data();
  s->value.resize(m);
  s->arg.resize(m + kTileRows);
  c.count = static_cast<int64_t>(n);
  r.count = static_cast<int64_t>(m);
  const int64_t work = row_minima(c, r, {s->value.h.data(), s->value.l.data(), s->arg.data()});
  double scale = 0;
  if (ends()) {
    for (int k = 0; k < columns; k += 3) {
      const double p = largest(s->column[k], n), q = largest(s->column[k + 1], n),
                   t = largest(s->column[k + 2], n);
      for (int j = 0; j < rows; j += 3) {
        const double h = j + 2 < rows ? largest(s->row[j + 2], m) : 0.0;
        scale = std::max(scale, p + q * largest(s->row[j], m) + t * largest(s->row[j + 1], m) + h);
      }
    }
  } else {
    // d^2/n is no more than the squares; d carries the rounding of both sums.
    const double sums = std::max(largest(s->column[2], n), largest(s->row[1], m)),
                 squares = std::max(largest(s->column[3], n), largest(s->row[2], m));
    scale =
        largest(s->column[0], n) + 2 * squares + 2 * radius_ * sums + radius_ * radius_ * total_;
  }
  return {precise ? 4 * work : work, (precise ? 0x1p-98 : 8 * 0x1p-53) * scale + cut_error_};
}

PassReport BlockLayer::reach_from(const BlockLayer& before, bool precise, PassScratch* s) {
  const size_t n = before.size(), m = size();
  s->ready.resize(m + kTileRows);
  size_t ready = 0;
  for (size_t r = 0; r < m; ++r) {
    while (ready < n && before.blocks[ready].middle() <= blocks[r].middle()) ++ready;
    s->ready[r] = static_cast<double>(ready);
  }
  const TileKernels& tiles = tile_kernels();
  for (int k = 0; k < 6; ++k) {
    s->column[k].resize(n);
    s->row[k].resize(m);
  }
  for (size_t i = 0; i < n; ++i) {
    const DD a = before.middle_[0][i], b = before.middle_[1][i], c = before.middle_[2][i];
    if (ends()) {
      set3(s->column, i, sum(c, before.reach[i], precise), a, b);
    } else {
      s->column[0].set(i, before.reach[i]);
      set3(s->column + 1, i, a, b, c);
    }
  }
  for (size_t i = 0; i < m; ++i) {
    const DD a = middle_[0][i], b = middle_[1][i], c = middle_[2][i];
    if (ends()) {
      s->row[0].set(i, -b);
      s->row[1].set(i, a);
    } else {
      set3(s->row, i, a, b, c);
    }
  }
  PassReport report;
  if (ends()) {
    report = pass(precise ? tiles.ends_precise : tiles.ends, 3, 2, n, m, precise, false, s);
    for (size_t i = 0; i < m; ++i) reach.set(i, sum(s->value[i], -middle_[2][i], precise));
    // The height of the row was added here.
    report.error += (precise ? 0x1p-100 : 0x1p-53) * largest(middle_[2], m);
  } else {
    report = pass(precise ? tiles.clusters_precise : tiles.clusters, 4, 3, n, m, precise, false, s);
    for (size_t i = 0; i < m; ++i) reach.set(i, s->value[i]);
  }
  from.assign(s->arg.begin(), s->arg.begin() + static_cast<std::ptrdiff_t>(m));
  return report;
}

PassReport BlockLayer::forward_from(const BlockLayer& before, bool precise, PassScratch* s) {
  const size_t n = before.size(), m = size();
  for (int k = 0; k < 6; ++k) {
    s->column[k].resize(n);
    s->row[k].resize(m);
  }
  s->column_z.resize(n);
  s->row_z.resize(m);
  s->ready.resize(m + kTileRows);
  s->end.resize(m + kTileRows);
  for (size_t i = 0; i < n; ++i) {
    const DD f = before.forward[i];
    s->column_z.set(i, f);
    if (ends()) {
      for (int k = 0; k < 2; ++k)
        set3(s->column + 3 * k, i, sum(before.out_[k][2][i], f, precise), before.out_[k][0][i],
             before.out_[k][1][i]);
      s->column_z.set(i, sum(f, {std::min(0.0, before.slope_[i] * before.width_[i]), 0}, precise));
    } else {
      s->column[0].set(i, f);
      set3(s->column + 1, i, before.out_[0][0][i], before.out_[0][1][i], before.out_[0][2][i]);
    }
  }
  size_t ready = 0, end = 0;
  for (size_t i = 0; i < m; ++i) {
    const uint32_t last = ends() ? blocks[i].hi : highest_[i];
    while (ready < n && before.highest_[ready] <= blocks[i].lo) ++ready;
    while (end < n && before.blocks[end].lo <= last) ++end;
    s->ready[i] = static_cast<double>(ready);
    s->end[i] = static_cast<double>(end);
    s->row_z.set(i, {std::min(0.0, -slope_[i] * width_[i]), 0});
    if (ends()) {
      for (int k = 0; k < 2; ++k) set3(s->row + 3 * k, i, in_[k][1][i], in_[k][0][i], in_[k][2][i]);
    } else {
      set3(s->row, i, in_[0][0][i], in_[0][1][i], in_[0][2][i]);
    }
  }
  const TileKernels& tiles = tile_kernels();
  PassReport report =
      ends()
          ? pass(precise ? tiles.blocks_precise : tiles.blocks, 6, 6, n, m, precise, true, s)
          : pass(precise ? tiles.clusters_precise : tiles.clusters, 4, 3, n, m, precise, true, s);
  for (size_t i = 0; i < m; ++i) forward.set(i, s->value[i]);
  return report;
}

PassReport BlockLayer::backward_from(const BlockLayer& after, bool precise, PassScratch* s) {
  // The same from the other end: rows and columns in reverse, intervals start at the rows.
  const size_t n = after.size(), m = size();
  for (int k = 0; k < 6; ++k) {
    s->column[k].resize(n);
    s->row[k].resize(m);
  }
  s->column_z.resize(n);
  s->row_z.resize(m);
  s->ready.resize(m + kTileRows);
  s->end.resize(m + kTileRows);
  for (size_t c = 0; c < n; ++c) {
    const size_t i = n - 1 - c;
    const DD f = after.backward[i];
    s->column_z.set(c, f);
    if (ends()) {
      for (int k = 0; k < 2; ++k)
        set3(s->column + 3 * k, c, sum(after.in_[k][2][i], f, precise), after.in_[k][1][i],
             after.in_[k][0][i]);
      s->column_z.set(c, sum(f, {std::min(0.0, -after.slope_[i] * after.width_[i]), 0}, precise));
    } else {
      s->column[0].set(c, f);
      set3(s->column + 1, c, -after.in_[0][0][i], -after.in_[0][1][i], -after.in_[0][2][i]);
    }
  }
  size_t ready = 0, end = 0;
  for (size_t r = 0; r < m; ++r) {
    const size_t i = m - 1 - r;
    while (ready < n && after.blocks[n - 1 - ready].lo >= highest_[i]) ++ready;
    while (end < n &&
           (ends() ? after.blocks[n - 1 - end].hi : after.highest_[n - 1 - end]) >= blocks[i].lo)
      ++end;
    s->ready[r] = static_cast<double>(ready);
    s->end[r] = static_cast<double>(end);
    s->row_z.set(r, {std::min(0.0, slope_[i] * width_[i]), 0});
    if (ends()) {
      for (int k = 0; k < 2; ++k)
        set3(s->row + 3 * k, r, out_[k][0][i], out_[k][1][i], out_[k][2][i]);
    } else {
      set3(s->row, r, -out_[0][0][i], -out_[0][1][i], -out_[0][2][i]);
    }
  }
  const TileKernels& tiles = tile_kernels();
  PassReport report =
      ends()
          ? pass(precise ? tiles.blocks_precise : tiles.blocks, 6, 6, n, m, precise, true, s)
          : pass(precise ? tiles.clusters_precise : tiles.clusters, 4, 3, n, m, precise, true, s);
  for (size_t r = 0; r < m; ++r) backward.set(m - 1 - r, s->value[r]);
  return report;
}

}  // namespace torchext::levels
