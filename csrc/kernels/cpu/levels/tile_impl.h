// Row minima by tiles, written once over a vector V8 of eight doubles that each per-ISA source
// defines: load, store, store_index, splat, add, sub, mul, div, fma, lesser(a, b), choose(mask, a,
// b), less(a, b), same(a, b), both, either. No operation is fused unless it says fma, so all
// instruction sets give the same bits.
#pragma once

#include "../../levels/tile.h"

namespace torchext::levels {
namespace {

#define TX_INL static inline __attribute__((always_inline))

constexpr double kInf = __builtin_inf();

// ---- numbers: a plain double, or a double-double

struct Plain {
  V8 h;
};
struct Pair {
  V8 h, l;
};

TX_INL Pair sum2(V8 a, V8 b) {
  const V8 s = add(a, b), t = sub(s, a);
  return {s, add(sub(a, sub(s, t)), sub(b, t))};
}
TX_INL Pair quick2(V8 a, V8 b) {
  const V8 s = add(a, b);
  return {s, sub(b, sub(s, a))};
}

TX_INL Plain plus(Plain a, Plain b) { return {add(a.h, b.h)}; }
TX_INL Plain minus(Plain a, Plain b) { return {sub(a.h, b.h)}; }
TX_INL Plain times(Plain a, Plain b) { return {mul(a.h, b.h)}; }
TX_INL Plain over(Plain a, Plain b) { return {div(a.h, b.h)}; }
TX_INL Plain pick(Mask m, Plain a, Plain b) { return {choose(m, a.h, b.h)}; }
TX_INL Mask below(Plain a, Plain b) { return less(a.h, b.h); }
TX_INL Plain smaller(Plain a, Plain b) { return {lesser(a.h, b.h)}; }

TX_INL Pair plus(Pair a, Pair b) {
  const Pair s = sum2(a.h, b.h), t = sum2(a.l, b.l), r = quick2(s.h, add(s.l, t.h));
  return quick2(r.h, add(r.l, t.l));
}
TX_INL Pair minus(Pair a, Pair b) {
  const V8 zero = splat(0.0);
  return plus(a, Pair{sub(zero, b.h), sub(zero, b.l)});
}
TX_INL Pair times(Pair a, Pair b) {
  const V8 p = mul(a.h, b.h), e = fma(a.h, b.h, sub(splat(0.0), p));
  return quick2(p, add(e, add(mul(a.h, b.l), mul(a.l, b.h))));
}
TX_INL Pair over(Pair a, Pair b) {
  const V8 q = div(a.h, b.h);
  const Pair r = minus(a, times(Pair{q, splat(0.0)}, b));
  return quick2(q, div(r.h, b.h));
}
TX_INL Pair pick(Mask m, Pair a, Pair b) { return {choose(m, a.h, b.h), choose(m, a.l, b.l)}; }
TX_INL Mask below(Pair a, Pair b) {
  return either(less(a.h, b.h), both(same(a.h, b.h), less(a.l, b.l)));
}
TX_INL Pair smaller(Pair a, Pair b) { return pick(below(b, a), b, a); }

TX_INL void constant(double x, Plain* out) { *out = {splat(x)}; }
TX_INL void constant(double x, Pair* out) { *out = {splat(x), splat(0.0)}; }

// ---- columns: one for eight rows, or eight for one row

struct OneColumn {
  TX_INL void get(const double* h, const double*, int64_t c, Plain* out) { *out = {splat(h[c])}; }
  TX_INL void get(const double* h, const double* l, int64_t c, Pair* out) {
    *out = {splat(h[c]), splat(l[c])};
  }
};
struct EightColumns {
  TX_INL void get(const double* h, const double*, int64_t c, Plain* out) { *out = {load(h + c)}; }
  TX_INL void get(const double* h, const double* l, int64_t c, Pair* out) {
    *out = {load(h + c), load(l + c)};
  }
};

// ---- rows: gathered once per tile

struct Pick {
  int64_t first, stride, count;
};

TX_INL V8 lanes(const double* a, const Pick& p) {
  if (p.stride == 1) return load(a + p.first);
  if (p.stride == 0) return splat(a[p.first]);
  if (p.count == kTileRows) return gather(a + p.first, p.stride);
  double buffer[kTileRows];
  for (int k = 0; k < kTileRows; ++k)
    buffer[k] = a[p.first + p.stride * (k < p.count ? k : p.count - 1)];
  return load(buffer);
}
TX_INL void lanes_of(const double* h, const double*, const Pick& p, Plain* out) {
  *out = {lanes(h, p)};
}
TX_INL void lanes_of(const double* h, const double* l, const Pick& p, Pair* out) {
  *out = {lanes(h, p), lanes(l, p)};
}

// ---- entries

template <class N>
struct Ends {
  static constexpr int kBases = 1;
  static constexpr bool kAboveHeight = true;  // entries lack the height of the row
  N x, y;
  TX_INL Ends rows(const TileRows& r, const Pick& p) {
    Ends e;
    lanes_of(r.a[0], r.low[0], p, &e.x);
    lanes_of(r.a[1], r.low[1], p, &e.y);
    return e;
  }
  template <class Columns>
  TX_INL N plane(const TileColumns& c, int k, int64_t at, N x, N y) {
    N big, p, q;
    Columns::get(c.a[k], c.low[k], at, &big);
    Columns::get(c.a[k + 1], c.low[k + 1], at, &p);
    Columns::get(c.a[k + 2], c.low[k + 2], at, &q);
    return plus(plus(big, times(p, x)), times(q, y));
  }
  template <class Columns = OneColumn>
  TX_INL N entry(const Ends& e, const TileColumns& c, int64_t at) {
    return plane<Columns>(c, 0, at, e.x, e.y);
  }
};

template <class N>
struct Blocks {
  static constexpr int kBases = 2;
  static constexpr bool kAboveHeight = false;
  N x, y, height, x2, y2, height2;
  TX_INL Blocks rows(const TileRows& r, const Pick& p) {
    Blocks e;
    lanes_of(r.a[0], r.low[0], p, &e.x);
    lanes_of(r.a[1], r.low[1], p, &e.y);
    lanes_of(r.a[2], r.low[2], p, &e.height);
    lanes_of(r.a[3], r.low[3], p, &e.x2);
    lanes_of(r.a[4], r.low[4], p, &e.y2);
    lanes_of(r.a[5], r.low[5], p, &e.height2);
    return e;
  }
  template <class Columns = OneColumn>
  TX_INL N entry(const Blocks& e, const TileColumns& c, int64_t at) {
    const auto plane = [&](int k, N x, N y) __attribute__((always_inline)) {
      return Ends<N>::template plane<Columns>(c, k, at, x, y);
    };
    const N one = smaller(plane(0, e.x, e.y), plane(3, e.x, e.y));
    const N two = smaller(plane(0, e.x2, e.y2), plane(3, e.x2, e.y2));
    return smaller(plus(one, e.height), plus(two, e.height2));
  }
};

template <class N>
struct Clusters {
  static constexpr int kBases = 1;
  static constexpr bool kAboveHeight = false;
  N w, s, q;
  TX_INL Clusters rows(const TileRows& r, const Pick& p) {
    Clusters e;
    lanes_of(r.a[0], r.low[0], p, &e.w);
    lanes_of(r.a[1], r.low[1], p, &e.s);
    lanes_of(r.a[2], r.low[2], p, &e.q);
    return e;
  }
  template <class Columns = OneColumn>
  TX_INL N entry(const Clusters& e, const TileColumns& c, int64_t at) {
    N f, w, s, q, zero;
    Columns::get(c.a[0], c.low[0], at, &f);
    Columns::get(c.a[1], c.low[1], at, &w);
    Columns::get(c.a[2], c.low[2], at, &s);
    Columns::get(c.a[3], c.low[3], at, &q);
    constant(0.0, &zero);
    const N d = minus(e.s, s);
    const N k = minus(minus(e.q, q), over(times(d, d), minus(e.w, w)));
    return plus(f, pick(below(zero, k), k, zero));  // the test is false for 0/0, an empty cluster
  }
};

TX_INL V8 high(Plain a) { return a.h; }
TX_INL V8 high(Pair a) { return a.h; }
TX_INL V8 low(Plain) { return splat(0.0); }
TX_INL V8 low(Pair a) { return a.l; }
TX_INL void store_low(double*, Plain) {}
TX_INL void store_low(double* p, Pair a) { store(p, a.l); }

template <class N>
struct Best {
  N value;
  V8 column;

  TX_INL void offer(Best* b, N v, V8 at) {
    const Mask better = below(v, b->value);
    b->value = pick(better, v, b->value);
    b->column = choose(better, at, b->column);
  }
};

/// Rows first, first + stride, .. (count <= 8 of them) over the columns [c0, c1), and one more at
/// will. In pairs: half as many steps that wait for each other, and no odd one that would be
/// mispredicted.
template <class Entry, class N>
TX_INL Best<N> tile(const TileColumns& columns, const TileRows& rows, const Pick& p, int64_t c0,
                    int64_t c1) {
  const Entry e = Entry::rows(rows, p);
  Best<N> best;
  constant(kUnreachable, &best.value);
  V8 at = splat(static_cast<double>(c0));
  best.column = at;
  const V8 one = splat(1.0), two = splat(2.0);
  const auto offer = [&](N u, N v) __attribute__((always_inline)) {
    const Mask second = below(v, u);
    Best<N>::offer(&best, pick(second, v, u), choose(second, add(at, one), at));
    at = add(at, two);
  };
  const auto ready_in_all = static_cast<int64_t>(rows.ready[p.first]);
  int64_t c = c0;
  for (; c < c1 && c + 1 < ready_in_all; c += 2)
    offer(Entry::entry(e, columns, c), Entry::entry(e, columns, c + 1));
  if (c >= c1) return best;
  // The edge of what exists: some rows end here.
  const V8 ready = lanes(rows.ready, p);
  N none;
  constant(kInf, &none);
  if (columns.z == nullptr) {
    for (; c < c1; c += 2)
      offer(pick(less(at, ready), Entry::entry(e, columns, c), none),
            pick(less(add(at, one), ready), Entry::entry(e, columns, c + 1), none));
    return best;
  }
  const V8 end = lanes(rows.end, p);
  N z;
  lanes_of(rows.z, rows.z_low, p, &z);
  const auto entry = [&](int64_t column, V8 here) __attribute__((always_inline)) {
    N own;
    OneColumn::get(columns.z, columns.z_low, column, &own);
    const N flat = pick(less(here, end), plus(own, z), none);
    return pick(less(here, ready), Entry::entry(e, columns, column), flat);
  };
  for (; c < c1; c += 2) offer(entry(c, at), entry(c + 1, add(at, one)));
  return best;
}

template <class Entry, class N>
int64_t row_minima(const TileColumns& columns, const TileRows& rows,
                   const RowMinima& out) noexcept {
  const int64_t count = rows.count;
  int64_t top = 1, work = 0;
  while (top * kTileRows < count) top *= kTileRows;
  for (int64_t stride = top; stride >= 1; stride /= kTileRows) {
    const int64_t reach = stride * kTileRows;
    int64_t before = 0;  // argmin of the row below this group
    for (int64_t base = 0; base + stride <= count; base += reach) {
      // Row `known`, if there is one, was solved in the pass before and bounds the others.
      const int64_t first = base + stride - 1, known = base + reach - 1;
      const bool bounded = stride != top && known < count;
      const int64_t fit = (count - 1 - first) / stride + 1;
      const Pick p{first, stride, fit < kTileRows ? fit : kTileRows};
      int64_t c0 = before, c1 = columns.count;
      // Rounding may have put the argmin of `known` before that of the row below, of the same tile.
      if (bounded && out.arg[known] > before) before = out.arg[known];
      if (bounded) c1 = before + 1;
      const auto last = static_cast<int64_t>(rows.end[first + (p.count - 1) * stride]);
      if (last < c1) c1 = last;
      const Best<N> best = tile<Entry, N>(columns, rows, p, c0, c1);
      if (c1 > c0) work += kTileRows * (c1 - c0);
      // The known row comes out as before: its argmin is the last column here.
      if (stride == 1) {
        store(out.value + first, high(best.value));
        store(out.low + first, low(best.value));
        store_index(out.arg + first, best.column);
        continue;
      }
      double value[kTileRows], rest[kTileRows];
      uint32_t arg[kTileRows];
      store(value, high(best.value));
      store(rest, low(best.value));
      store_index(arg, best.column);
      for (int64_t k = 0; k < p.count; ++k) {
        out.value[first + k * stride] = value[k];
        out.low[first + k * stride] = rest[k];
        out.arg[first + k * stride] = arg[k];
      }
    }
  }
  return work;
}

/// h + l += x; l gathers the rounding of at most 32 terms.
TX_INL void accumulate(Pair* sum, Pair x) {
  const Pair s = sum2(sum->h, x.h);
  sum->h = s.h;
  sum->l = add(sum->l, add(s.l, x.l));
}

void run_sums(const double* x, int64_t runs, double centre, double* out) noexcept {
  constexpr int64_t kRun = 32;
  const V8 c = splat(-centre);
  for (int64_t r = 0; r < runs; r += kTileRows) {  // a run per lane
    const Pick p{r * kRun, kRun, runs - r < kTileRows ? runs - r : kTileRows};
    Pair s{splat(0.0), splat(0.0)}, q = s;
#pragma GCC unroll 1  // thirty-two copies take the compiler minutes
    for (int64_t i = 0; i < kRun; ++i) {
      const Pair t = sum2(lanes(x + i, p), c);
      accumulate(&s, t);
      accumulate(&q, times(t, t));
    }
    s = sum2(s.h, s.l);
    q = sum2(q.h, q.l);
    double v[4][kTileRows];
    store(v[0], s.h);
    store(v[1], s.l);
    store(v[2], q.h);
    store(v[3], q.l);
    for (int k = 0; k < kTileRows; ++k)
      for (int j = 0; j < 4; ++j) out[4 * (r + k) + j] = v[j][k];
  }
}

}  // namespace
}  // namespace torchext::levels
