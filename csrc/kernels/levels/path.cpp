#include "path.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace torchext::levels {
namespace {

using Candidates = PathScratch::Candidates;

/// t, Y = t W - S and G = Q - t S of items: the cost of an interval from k to j is
/// G_k + t_k X_j + Y_k t_j + H_j with X = -Y and H = -G.
void fill_ends(const Axis& axis, const std::vector<uint32_t>& items, bool precise,
               Candidates* out) {
  double s_max = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const Cut& c = axis.cut[items[i]];
    const DD t = axis.about(axis.lo[items[i]]);
    out->a.set(i, t);
    if (precise) {
      out->b.set(i, t * c.w - c.s);
      out->c.set(i, c.q - t * c.s);
    } else {
      out->b.h[i] = t.h * c.w.h - c.s.h;
      out->c.h[i] = c.q.h - t.h * c.s.h;
    }
    s_max = std::max(s_max, std::fabs(c.s.h));
  }
  const Cut& all = axis.cut[items.back()];
  const double t_max = std::max(std::fabs(out->a.h[0]), std::fabs(out->a.h[items.size() - 1]));
  out->scale = entry_scale(all, t_max, s_max);
}

void fill_clusters(const Axis& axis, const std::vector<uint32_t>& cuts, Candidates* out) {
  double q_max = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    const Cut& c = axis.cut[cuts[i]];
    out->a.set(i, c.w);
    out->b.set(i, c.s);
    out->c.set(i, c.q);
    q_max = std::max(q_max, c.q.h);
  }
  out->scale = cluster_scale(q_max, axis.total(), axis.radius, axis.largest_sum);
}

}  // namespace

void fill_candidates(const Axis& axis, Objective objective, const std::vector<uint32_t>& list,
                     bool precise, Candidates* out) {
  for (Plane* p : {&out->a, &out->b, &out->c}) p->resize(list.size());
  if (objective == Objective::stochastic) {
    fill_ends(axis, list, precise, out);
  } else {
    fill_clusters(axis, list, out);
  }
}

Path best_path(const Axis& axis, Objective objective, const Layers& layers, bool precise,
               PathScratch* s, std::vector<double>* reached) {
  const bool ends = objective == Objective::stochastic;
  const TileKernels& tiles = tile_kernels();
  RowMinimaFn* const row_minima = ends ? (precise ? tiles.ends_precise : tiles.ends)
                                       : (precise ? tiles.clusters_precise : tiles.clusters);
  size_t args = 0;
  for (size_t i = 1; i < layers.size(); ++i) args += layers[i]->size();
  s->arg.resize(args + kTileRows);
  std::vector<size_t> start(layers.size() + 1, 0);
  Path path;
  fill_candidates(axis, objective, *layers[0], precise, &s->from);
  s->value.resize(1);
  s->value.set(0, {});
  if (reached != nullptr) reached->assign(1, 0.0);
  for (size_t i = 1; i < layers.size(); ++i) {
    const std::vector<uint32_t>&columns = *layers[i - 1], &rows = *layers[i];
    const size_t n = columns.size(), m = rows.size();
    const bool again = i > 1 && layers[i] == layers[i - 1];
    Candidates& to = again ? s->from : s->to;
    if (!again) {
      fill_candidates(axis, objective, rows, precise, &to);
      if (ends) {
        s->x.resize(m);
        s->height.resize(m);
        for (size_t r = 0; r < m; ++r) {
          s->x.set(r, -to.b[r]);
          s->height.set(r, -to.c[r]);
        }
      }
    }
    if (!again || layers[i - 2] != layers[i - 1]) {
      s->ready.resize(m + kTileRows);
      size_t ready = 0;
      for (size_t r = 0; r < m; ++r) {
        while (ready < n && columns[ready] < rows[r]) ++ready;
        s->ready[r] = static_cast<double>(ready);
      }
    }
    const Candidates& from = s->from;
    TileColumns c{};
    TileRows r{};
    // Costs grow along a layer.
    const double last = s->value.h[n - 1], largest = last < kUnreachable ? std::fabs(last) : 0.0;
    const auto give = [](const Plane& p, const double** a, const double** low, int k) {
      a[k] = p.h.data();
      low[k] = p.l.data();
    };
    if (ends) {
      s->base.resize(n);
      for (size_t k = 0; k < n; ++k) {
        if (precise) {
          s->base.set(k, from.c[k] + s->value[k]);
        } else {
          s->base.h[k] = from.c.h[k] + s->value.h[k];
        }
      }
      give(s->base, c.a, c.low, 0);
      give(from.a, c.a, c.low, 1);
      give(from.b, c.a, c.low, 2);
      give(s->x, r.a, r.low, 0);
      give(to.a, r.a, r.low, 1);
    } else {
      give(s->value, c.a, c.low, 0);
      give(from.a, c.a, c.low, 1);
      give(from.b, c.a, c.low, 2);
      give(from.c, c.a, c.low, 3);
      give(to.a, r.a, r.low, 0);
      give(to.b, r.a, r.low, 1);
      give(to.c, r.a, r.low, 2);
    }
    r.ready = r.end = s->ready.data();
    s->next.resize(m);
    start[i + 1] = start[i] + m;
    uint32_t* arg = s->arg.data() + start[i];
    c.count = static_cast<int64_t>(n);
    r.count = static_cast<int64_t>(m);
    const int64_t work = row_minima(c, r, {s->next.h.data(), s->next.l.data(), arg});
    path.work += precise ? 4 * work : work;
    if (ends) {
      for (size_t k = 0; k < m; ++k) {
        if (!precise) {
          s->next.h[k] += s->height.h[k];
        } else {
          s->next.set(k, s->next[k] + s->height[k]);
        }
      }
    }
    const double scale = std::max(from.scale, to.scale) + largest;
    path.slack += row_minima_noise(static_cast<int64_t>(m)) *
                  ((precise ? 0x1p-98 : 8 * 0x1p-53) * scale + axis.cut_error);
    if (!again) std::swap(s->from, s->to);
    std::swap(s->value, s->next);
    if (reached != nullptr)
      reached->insert(reached->end(), s->value.h.data(), s->value.h.data() + m);
  }
  path.value = s->value.h[0];
  path.at.resize(layers.size());
  size_t k = 0;
  for (size_t i = layers.size(); i-- > 0;) {
    path.at[i] = (*layers[i])[k];
    if (i > 0) k = s->arg[start[i] + k];
  }
  return path;
}

std::vector<std::vector<uint32_t>> prune_candidates(const Axis& axis, Objective objective,
                                                    const Layers& layers, const Path& path,
                                                    const std::vector<double>& reached,
                                                    PathScratch* s) {
  // The ways from a candidate to the end are the ways to it from the start of the mirrored data.
  const Axis mirrored = mirror(axis);
  const auto top =
      static_cast<uint32_t>(axis.size() - (objective == Objective::stochastic ? 1 : 0));
  std::vector<std::vector<uint32_t>> lists;
  lists.reserve(layers.size());
  Layers back;
  for (size_t i = layers.size(); i-- > 0;) {
    if (i + 1 < layers.size() && layers[i] == layers[i + 1]) {  // shared lists stay shared
      back.push_back(back.back());
      continue;
    }
    lists.emplace_back();
    for (size_t k = layers[i]->size(); k-- > 0;) lists.back().push_back(top - (*layers[i])[k]);
    back.push_back(&lists.back());
  }
  std::vector<double> remaining;
  const Path other = best_path(mirrored, objective, back, false, s, &remaining);
  const double most = path.value + 2 * (path.slack + other.slack);
  std::vector<std::vector<uint32_t>> kept(layers.size());
  size_t at = 0, end = remaining.size();
  for (size_t i = 0; i < layers.size(); ++i) {
    const size_t n = layers[i]->size();
    end -= n;
    for (size_t k = 0; k < n; ++k)
      if (reached[at + k] + remaining[end + n - 1 - k] <= most) kept[i].push_back((*layers[i])[k]);
    at += n;
  }
  return kept;
}

}  // namespace torchext::levels
