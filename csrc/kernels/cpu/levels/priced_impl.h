// Shortest paths with a price per step (see PricedSteps), over the tiles of tile_impl.h.
#pragma once

#include "tile_impl.h"

namespace torchext::levels {
namespace {

constexpr double kLane[kTileRows] = {0, 1, 2, 3, 4, 5, 6, 7};

template <class Entry, class N>
struct Priced {
  const PricedSteps& s;
  int64_t first_column = 0;  // columns before it lose in every row to come
  int64_t end_column = 0;    // columns from it on lost in the rows so far
  int64_t favourite = 0;     // the best column of the last row
  int64_t work = 0;

  /// What a column must stay below for `row` to have a use for it.
  static double limit(const Priced& p, int64_t row) {
    const Entry e = Entry::rows(p.s.rows, Pick{row, 1, 1});
    double at_favourite[kTileRows];
    store(at_favourite, high(Entry::entry(e, p.s.columns, p.favourite)));
    const double above = Entry::kAboveHeight ? p.s.height[0][row] : 0.0;
    return (at_favourite[0] - above) + p.s.margin;
  }

  /// Moves first_column on, given the smallest entry of the last row.
  static void advance(Priced* p, int64_t row, double least) {
    const Entry e = Entry::rows(p->s.rows, Pick{row, 0, 1});
    const double most = least + p->s.margin;
    while (p->first_column < p->favourite) {
      double v[kTileRows];
      store(v, high(Entry::template entry<EightColumns>(e, p->s.columns, p->first_column)));
      int64_t k = 0;
      while (k < kTileRows && p->first_column + k < p->favourite && v[k] > most) ++k;
      p->first_column += k;
      if (k < kTileRows) return;
    }
  }

  /// value and bases of eight rows from their smallest entries.
  static void finish(const Priced& p, int64_t row, N least) {
    const PricedSteps& s = p.s;
    N price;
    constant(s.price, &price);
    const auto height = [&](int k) __attribute__((always_inline)) {
      N h;
      lanes_of(s.height[k], s.height_low[k], Pick{row, 1, kTileRows}, &h);
      return h;
    };
    if constexpr (Entry::kAboveHeight) least = minus(least, height(0));
    const N value = plus(least, price);
    store(s.value + row, high(value));
    store_low(s.value_low + row, value);
    for (int k = 0; k < Entry::kBases; ++k) {
      const N base = s.height[k] != nullptr ? plus(value, height(k)) : value;
      store(s.base[k] + row, high(base));
      store_low(s.base_low[k] + row, base);
    }
  }

  /// Rows row .. row + 7, columns up to row + 6 if `close`.
  static void small(Priced* p, int64_t row, int64_t rows, bool close) {
    const PricedSteps& s = p->s;
    const Pick eight{row, 1, rows};
    // Tiles take columns in pairs, and this one is not there yet.
    for (int k = 0; k < Entry::kBases; ++k) s.base[k][row] = kInf;
    Best<N> best = tile<Entry, N>(s.columns, s.rows, eight, p->first_column, p->end_column);
    p->work += kTileRows * (p->end_column - p->first_column);
    finish(*p, row, best.value);
    if (close) {
      const Entry e = Entry::rows(s.rows, eight);
      const V8 index = add(splat(static_cast<double>(row)), load(kLane));
      N none;
      constant(kInf, &none);
      for (int64_t c = row; c + 1 < row + rows; ++c) {
        const V8 at = splat(static_cast<double>(c));
        Best<N>::offer(&best, pick(less(at, index), Entry::entry(e, s.columns, c), none), at);
        finish(*p, row, best.value);
      }
      p->work += kTileRows * (rows - 1);
    }
    store_index(s.arg + row, best.column);
    double least[kTileRows];
    store(least, high(best.value));
    p->favourite = s.arg[row + rows - 1];
    advance(p, row + rows - 1, least[rows - 1]);
  }

  static void move(const double** array, int64_t by) {
    if (*array != nullptr) *array += by;
  }

  /// Rows row .. row + rows - 1, which have no use for columns from row on.
  static void large(Priced* p, int64_t row, int64_t rows) {
    const PricedSteps& s = p->s;
    const int64_t from = p->first_column;
    TileColumns c = s.columns;
    TileRows r = s.rows;
    for (int k = 0; k < 6; ++k) {
      move(&c.a[k], from);
      move(&c.low[k], from);
      move(&r.a[k], row);
      move(&r.low[k], row);
    }
    c.count = p->end_column - from;
    r.count = rows;
    p->work += row_minima<Entry, N>(c, r, {s.value + row, s.value_low + row, s.arg + row});
    const double least = s.value[row + rows - 1];
    for (int64_t i = row; i < row + rows; i += kTileRows) {
      N v;
      lanes_of(s.value, s.value_low, Pick{i, 1, kTileRows}, &v);
      finish(*p, i, v);
    }
    for (int64_t i = row; i < row + rows; ++i) s.arg[i] += static_cast<uint32_t>(from);
    p->favourite = s.arg[row + rows - 1];
    advance(p, row + rows - 1, least);
  }
};

template <class Entry, class N>
int64_t priced_path(const PricedSteps& s) noexcept {
  Priced<Entry, N> p{s};
  const int64_t count = s.rows.count;
  s.value[0] = s.value_low[0] = 0;
  for (int k = 0; k < Entry::kBases; ++k) {
    s.base[k][0] = s.height[k] != nullptr ? s.height[k][0] : 0.0;
    s.base_low[k][0] = s.height[k] != nullptr ? s.height_low[k][0] : 0.0;
  }
  s.arg[0] = 0;
  for (int64_t row = 1; row < count;) {
    // Long blocks share passes over the columns, if all of those are there.
    int64_t rows = kTileRows;
    double most =
        Priced<Entry, N>::limit(p, row + kTileRows <= count ? row + kTileRows - 1 : count - 1);
    for (int64_t longer = 8 * kTileRows; row + longer <= count; longer *= kTileRows) {
      if (p.end_column - p.first_column < longer) break;
      const double further = Priced<Entry, N>::limit(p, row + longer - 1);
      if (!(s.value[row - 1] >= further)) break;
      rows = longer;
      most = further;
    }
    while (p.end_column < row && s.value[p.end_column] < most) ++p.end_column;
    if (rows > kTileRows) {
      Priced<Entry, N>::large(&p, row, rows);
    } else {
      Priced<Entry, N>::small(&p, row, count - row < rows ? count - row : rows,
                              p.end_column == row);
    }
    row += rows;
  }
  return p.work;
}

constexpr TileKernels kTiles{row_minima<Ends<Plain>, Plain>,      row_minima<Blocks<Plain>, Plain>,
                             row_minima<Clusters<Plain>, Plain>,  row_minima<Ends<Pair>, Pair>,
                             row_minima<Blocks<Pair>, Pair>,      row_minima<Clusters<Pair>, Pair>,
                             priced_path<Ends<Plain>, Plain>,     priced_path<Blocks<Plain>, Plain>,
                             priced_path<Clusters<Plain>, Plain>, priced_path<Ends<Pair>, Pair>,
                             priced_path<Clusters<Pair>, Pair>,   run_sums};

}  // namespace
}  // namespace torchext::levels
