#include "block_layer.h"

#include <algorithm>
#include <cmath>

namespace torchext::levels {
namespace {

/// Largest value that is one: rows without columns are unreachable.
double largest(const Plane& p, size_t n) {
  double m = 0;
  for (size_t i = 0; i < n; ++i) {
    const double a = std::fabs(p.h[i]);
    m = a < kUnreachable / 2 && a > m ? a : m;
  }
  return m;
}

/// sum = a + b, plain or not.
void add(const Plane& a, const Plane& b, size_t n, bool precise, Plane* sum) {
  sum->resize(n);
  for (size_t i = 0; i < n; ++i) {
    if (precise) {
      sum->set(i, a[i] + b[i]);
    } else {
      sum->h[i] = a.h[i] + b.h[i];
    }
  }
}

void mirror(const Plane& a, size_t n, bool precise, double sign, Plane* out) {
  out->resize(n);
  for (size_t i = 0; i < n; ++i) out->h[i] = sign * a.h[n - 1 - i];
  if (precise)
    for (size_t i = 0; i < n; ++i) out->l[i] = sign * a.l[n - 1 - i];
}

template <class Arrays>
void give(const Plane& p, Arrays* arrays, int k) {
  arrays->a[k] = p.h.data();
  arrays->low[k] = p.l.data();
}

/// Left end t of an interval above the sums of `cut`: Y = t W - S, G = Q - t S. A right end has -Y,
/// -G.
void set_end(Plane* planes, size_t i, DD t, const Cut& cut, bool precise, double sign) {
  if (precise) {
    planes[0].set(i, t);
    const DD y = t * cut.w - cut.s, g = cut.q - t * cut.s;
    planes[1].set(i, sign < 0 ? -y : y);
    planes[2].set(i, sign < 0 ? -g : g);
    return;
  }
  planes[0].h[i] = t.h;
  planes[1].h[i] = sign * (t.h * cut.w.h - cut.s.h);
  planes[2].h[i] = sign * (cut.q.h - t.h * cut.s.h);
}

}  // namespace

void BlockLayer::fill(const RoundScratch& s, bool start) {
  const size_t n = size();
  for (auto* group : {out_[0], out_[1], in_[0], in_[1], middle_})
    for (int k = 0; k < 3; ++k) group[k].resize(n);
  for (Plane* p : {&reach, &forward, &backward, &out_z_, &in_z_}) p->resize(n);
  std::fill(out_z_.h.begin(), out_z_.h.end(), 0.0);
  std::fill(in_z_.h.begin(), in_z_.h.end(), 0.0);
  width_.resize(n);
  slope_.assign(n, 0.0);
  from.resize(n);
  highest_.resize(n);
  if (s.objective == Objective::stochastic) {
    fill_ends(s);
  } else {
    fill_clusters(s, start);
  }
  const Axis& a = *s.axis;
  const auto size = static_cast<uint32_t>(a.size());
  const double t = std::max(std::fabs(a.about(a.lo[std::min(blocks.front().lo, size - 1)]).h),
                            std::fabs(a.about(a.hi[std::min(blocks.back().hi, size - 1)]).h));
  // |S| grows up to the centre and falls from there.
  const Cut &low = a.cut[blocks.front().lo], &high = a.cut[std::min(blocks.back().hi + 1, size)];
  const double sums = a.lo[std::min(blocks.front().lo, size - 1)] <= a.centre &&
                              a.centre <= a.hi[std::min(blocks.back().hi, size - 1)]
                          ? a.largest_sum
                          : std::max(std::fabs(low.s.h), std::fabs(high.s.h));
  scale_ = s.objective == Objective::stochastic
               ? high.q.h + t * (2 * sums + t * high.w.h)
               : 2 * high.q.h + 2 * a.radius * sums + a.radius * a.radius * high.w.h;
}

void BlockLayer::fill_ends(const RoundScratch& s) {
  const Axis& axis = *s.axis;
  for (size_t i = 0; i < size(); ++i) {
    const Block& b = blocks[i];
    const uint32_t mid = b.middle();
    const DD lo = axis.about(axis.lo[b.lo]), hi = axis.about(axis.hi[b.hi]);
    const Cut &below = axis.cut[b.lo], &above = axis.cut[b.hi + 1];
    set_end(out_[0], i, hi, above, s.precise, 1);
    set_end(out_[1], i, lo, above, s.precise, 1);
    set_end(in_[0], i, lo, below, s.precise, -1);
    set_end(in_[1], i, hi, below, s.precise, -1);
    set_end(middle_, i, axis.about(axis.lo[mid]), axis.cut[mid], s.precise, 1);
    width_[i] = (hi - lo).h;
    highest_[i] = b.hi + 1;
  }
}

void BlockLayer::fill_clusters(const RoundScratch& s, bool start) {
  const Axis& axis = *s.axis;
  const auto put = [&](Plane* planes, size_t i, const Cut& c) {
    planes[0].set(i, c.w);
    planes[1].set(i, c.s);
    planes[2].set(i, c.q);
  };
  for (size_t i = 0; i < size(); ++i) {
    const Block& b = blocks[i];
    // A break lies below a single value, but anywhere in a bin.
    const bool inside = axis.binned && !start && b.hi < axis.size() && !axis.single(b.hi);
    highest_[i] = b.hi + (inside ? 1 : 0);
    put(out_[0], i, axis.cut[highest_[i]]);
    put(in_[0], i, axis.cut[b.lo]);
    put(middle_, i, axis.cut[b.middle()]);
  }
}

PassReport BlockLayer::reach_from(const BlockLayer& before, RoundScratch* s) {
  const bool ends = s->objective == Objective::stochastic;
  const size_t n = before.size(), m = size();
  s->ready.resize(m + kTileRows);
  size_t ready = 0;
  for (size_t r = 0; r < m; ++r) {
    while (ready < n && before.blocks[ready].middle() <= blocks[r].middle()) ++ready;
    s->ready[r] = static_cast<double>(ready);
  }
  TileColumns c{};
  TileRows r{};
  c.count = static_cast<int64_t>(n);
  r.count = static_cast<int64_t>(m);
  r.ready = r.end = s->ready.data();
  s->value.resize(m);
  from.resize(m + kTileRows);
  if (ends) {
    add(before.middle_[2], before.reach, n, s->precise, &s->base[0]);
    s->row_x.resize(m);
    for (size_t i = 0; i < m; ++i) s->row_x.set(i, -middle_[1][i]);
    give(s->base[0], &c, 0);
    give(before.middle_[0], &c, 1);
    give(before.middle_[1], &c, 2);
    give(s->row_x, &r, 0);
    give(middle_[0], &r, 1);
  } else {
    give(before.reach, &c, 0);
    for (int k = 0; k < 3; ++k) {
      give(before.middle_[k], &c, k + 1);
      give(middle_[k], &r, k);
    }
  }
  const TileKernels& tiles = tile_kernels();
  RowMinimaFn* const row_minima = ends ? (s->precise ? tiles.ends_precise : tiles.ends)
                                       : (s->precise ? tiles.clusters_precise : tiles.clusters);
  const int64_t work = row_minima(c, r, {s->value.h.data(), s->value.l.data(), from.data()});
  for (size_t i = 0; i < m; ++i) {
    const DD v = s->value[i];
    reach.set(i, !ends ? v : s->precise ? v - middle_[2][i] : DD{v.h - middle_[2].h[i], 0});
  }
  const double scale = before.scale_ + scale_ + largest(before.reach, n);
  return {s->precise ? 4 * work : work,
          (s->precise ? 0x1p-98 : 8 * 0x1p-53) * scale + s->axis->cut_error};
}

void BlockLayer::set_slopes(const RoundScratch& s, const BlockLayer& before) {
  double steepest = 0;
  for (size_t i = 0; i < size(); ++i) {
    if (width_[i] == 0) continue;
    // dC/dv_j of the interval between the middles: S - t_k n.
    const uint32_t k = from[i];
    const Cut& at = s.axis->cut[blocks[i].middle()];
    slope_[i] = s.precise ? (before.middle_[1][k] + (at.s - before.middle_[0][k] * at.w)).h
                          : before.middle_[1].h[k] + (at.s.h - before.middle_[0].h[k] * at.w.h);
    const DD rise = two_prod(slope_[i], width_[i]);
    if (s.precise) {
      out_[0][2].set(i, out_[0][2][i] + rise);
      in_[1][2].set(i, in_[1][2][i] - rise);
    } else {
      out_[0][2].h[i] += rise.h;
      in_[1][2].h[i] -= rise.h;
    }
    out_z_.h[i] = std::min(0.0, rise.h);
    in_z_.h[i] = std::min(0.0, -rise.h);
    steepest = std::max(steepest, std::fabs(rise.h));
  }
  scale_ += steepest;
}

PassReport BlockLayer::bounds(const BlockLayer& other, const Plane* const* column,
                              const Plane* const* row, Plane* result, RoundScratch* s) const {
  const bool ends = s->objective == Objective::stochastic;
  TileColumns c{};
  TileRows r{};
  for (int k = 0; k < (ends ? 6 : 4); ++k) give(*column[k], &c, k);
  for (int k = 0; k < (ends ? 6 : 3); ++k) give(*row[k], &r, k);
  c.z = s->column_z.h.data();
  c.z_low = s->column_z.l.data();
  r.z = row[6]->h.data();
  r.z_low = row[6]->l.data();
  r.ready = s->ready.data();
  r.end = s->end.data();
  c.count = static_cast<int64_t>(other.size());
  r.count = static_cast<int64_t>(size());
  s->arg.resize(size() + kTileRows);
  const TileKernels& tiles = tile_kernels();
  RowMinimaFn* const row_minima = ends ? (s->precise ? tiles.blocks_precise : tiles.blocks)
                                       : (s->precise ? tiles.clusters_precise : tiles.clusters);
  const int64_t work = row_minima(c, r, {result->h.data(), result->l.data(), s->arg.data()});
  const double scale = other.scale_ + scale_ + largest(s->column_z, other.size());
  return {s->precise ? 4 * work : work,
          (s->precise ? 0x1p-98 : 8 * 0x1p-53) * scale + s->axis->cut_error};
}

PassReport BlockLayer::forward_from(const BlockLayer& before, RoundScratch* s) {
  const bool ends = s->objective == Objective::stochastic;
  const size_t n = before.size(), m = size();
  s->ready.resize(m + kTileRows);
  s->end.resize(m + kTileRows);
  size_t ready = 0, end = 0;
  for (size_t i = 0; i < m; ++i) {
    const uint32_t last = ends ? blocks[i].hi : highest_[i];
    while (ready < n && before.highest_[ready] <= blocks[i].lo) ++ready;
    while (end < n && before.blocks[end].lo <= last) ++end;
    s->ready[i] = static_cast<double>(ready);
    s->end[i] = static_cast<double>(end);
  }
  add(before.out_z_, before.forward, n, s->precise, &s->column_z);
  if (!ends) {
    const Plane* column[] = {&before.forward, &before.out_[0][0], &before.out_[0][1],
                             &before.out_[0][2]};
    const Plane* row[] = {&in_[0][0], &in_[0][1], &in_[0][2], nullptr, nullptr, nullptr, &in_z_};
    return bounds(before, column, row, &forward, s);
  }
  for (int k = 0; k < 2; ++k) add(before.out_[k][2], before.forward, n, s->precise, &s->base[k]);
  const Plane* column[] = {&s->base[0], &before.out_[0][0], &before.out_[0][1],
                           &s->base[1], &before.out_[1][0], &before.out_[1][1]};
  const Plane* row[] = {&in_[0][1], &in_[0][0], &in_[0][2], &in_[1][1],
                        &in_[1][0], &in_[1][2], &in_z_};
  return bounds(before, column, row, &forward, s);
}

PassReport BlockLayer::backward_from(const BlockLayer& after, RoundScratch* s) {
  // The same from the other end: rows and columns in reverse, intervals start at the rows.
  const bool ends = s->objective == Objective::stochastic, precise = s->precise;
  const size_t n = after.size(), m = size();
  s->ready.resize(m + kTileRows);
  s->end.resize(m + kTileRows);
  size_t ready = 0, end = 0;
  for (size_t r = 0; r < m; ++r) {
    const size_t i = m - 1 - r;
    while (ready < n && after.blocks[n - 1 - ready].lo >= highest_[i]) ++ready;
    while (end < n &&
           (ends ? after.blocks[n - 1 - end].hi : after.highest_[n - 1 - end]) >= blocks[i].lo)
      ++end;
    s->ready[r] = static_cast<double>(ready);
    s->end[r] = static_cast<double>(end);
  }
  const Plane *column[6], *row[7];
  const auto mirror_column = [&](int k, const Plane& p, double sign) {
    mirror(p, n, precise, sign, &s->mirrored_column[k]);
    column[k] = &s->mirrored_column[k];
  };
  const auto mirror_row = [&](int k, const Plane& p, double sign) {
    mirror(p, m, precise, sign, &s->mirrored_row[k]);
    row[k] = &s->mirrored_row[k];
  };
  add(after.in_z_, after.backward, n, precise, &s->base[0]);
  mirror(s->base[0], n, precise, 1, &s->column_z);
  mirror(out_z_, m, precise, 1, &s->row_x);
  row[6] = &s->row_x;
  if (ends) {
    for (int k = 0; k < 2; ++k) {
      add(after.in_[k][2], after.backward, n, precise, &s->base[k]);
      mirror_column(3 * k, s->base[k], 1);
      mirror_column(3 * k + 1, after.in_[k][1], 1);
      mirror_column(3 * k + 2, after.in_[k][0], 1);
      mirror_row(3 * k, out_[k][0], 1);
      mirror_row(3 * k + 1, out_[k][1], 1);
      mirror_row(3 * k + 2, out_[k][2], 1);
    }
  } else {
    // W_r - W_c and its likes keep their signs if both are negated.
    mirror_column(0, after.backward, 1);
    for (int k = 0; k < 3; ++k) {
      mirror_column(k + 1, after.in_[0][k], -1);
      mirror_row(k, out_[0][k], -1);
    }
  }
  s->value.resize(m);
  const PassReport report = bounds(after, column, row, &s->value, s);
  for (size_t r = 0; r < m; ++r) backward.set(m - 1 - r, s->value[r]);
  return report;
}

}  // namespace torchext::levels
