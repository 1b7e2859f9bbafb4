// The dynamic programme over explicit candidates: layer after layer of row minima.
#pragma once

#include <cstdint>
#include <vector>

#include "axis.h"
#include "tile.h"

namespace torchext::levels {

/// A solution and what is known about it.
struct Path {
  std::vector<uint32_t> at;  // one item per level (nearest: one cut per break, both ends included)
  double value = 0;          // its cost as the programme saw it
  double slack = 0;          // no path over these candidates costs less than value - slack
  int64_t work = 0;          // entries evaluated; a double-double one counts 4
};

/// An array of double-doubles, words apart; readable to a whole tile beyond the end.
struct Plane {
  std::vector<double> h, l;

  void resize(size_t n) {
    h.resize(n + kTileRows);
    l.resize(n + kTileRows);
  }
  DD operator[](size_t i) const { return {h[i], l[i]}; }
  void set(size_t i, DD x) {
    h[i] = x.h;
    l[i] = x.l;
  }
};

/// Memory of the programme, reused from call to call.
struct PathScratch {
  struct Candidates {
    Plane a, b, c;  // stochastic: t, Y, G; nearest: W, S, Q
    double scale;   // bound on the sum of the magnitudes that an entry is made of
  };
  Candidates from, to;
  Plane x, height, base, value, next;  // x, height: -Y, -G of the rows
  std::vector<double> ready;
  std::vector<uint32_t> arg;
};

/// Fills `out` with what an interval's cost is made of at each listed item (nearest: cut).
void fill_candidates(const Axis& axis, Objective objective, const std::vector<uint32_t>& list,
                     bool precise, PathScratch::Candidates* out);

/// The cheapest path through `layers`, one candidate of each, strictly ascending; the leftmost
/// among equals, layer by layer from the end. Candidates are items with lo == hi (nearest: cuts),
/// in ascending order; the first and last layer have one. Layers that are the same pointer share
/// work.
/// `reached`, unless null, receives the cost of the best way to each candidate, layer after layer.
using Layers = std::vector<const std::vector<uint32_t>*>;
Path best_path(const Axis& axis, Objective objective, const Layers& layers, bool precise,
               PathScratch* scratch, std::vector<double>* reached = nullptr);

/// The candidates that some path of cost <= path.value + 2 path.slack visits, given the result of
/// best_path in plain double and its `reached`: all optima are among them.
std::vector<std::vector<uint32_t>> prune_candidates(const Axis& axis, Objective objective,
                                                    const Layers& layers, const Path& path,
                                                    const std::vector<double>& reached,
                                                    PathScratch* scratch);

}  // namespace torchext::levels
