// Double-double arithmetic: a value is the exact sum of two doubles, good to about 2^-104 relative.
#pragma once

#include <cmath>

#include "../philox.h"  // TX_HD

namespace torchext::levels {

struct DD {
  double h = 0, l = 0;  // |l| is at most half a unit in the last place of h
};

/// a + b exactly.
TX_HD DD two_sum(double a, double b) {
  const double s = a + b, t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}

/// a + b exactly, for |a| >= |b| or a = 0.
TX_HD DD quick_two_sum(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}

/// a b exactly, barring underflow and values above 2^990.
TX_HD DD two_prod(double a, double b) {
  const double p = a * b;
#if defined(__FMA__) || defined(__CUDA_ARCH__)
  return {p, std::fma(a, b, -p)};
#else  // std::fma would be a call; products of halves of 26 bits are exact (Dekker, 1971)
  constexpr double kSplit = 0x1p27 + 1;
  const double ca = kSplit * a, cb = kSplit * b, ah = ca - (ca - a), bh = cb - (cb - b),
               al = a - ah, bl = b - bh;
  return {p, ((ah * bh - p) + ah * bl + al * bh) + al * bl};
#endif
}

TX_HD DD operator+(DD a, DD b) {
  DD s = two_sum(a.h, b.h);
  const DD t = two_sum(a.l, b.l);
  s = quick_two_sum(s.h, s.l + t.h);
  return quick_two_sum(s.h, s.l + t.l);
}

TX_HD DD operator-(DD a) { return {-a.h, -a.l}; }

TX_HD DD operator-(DD a, DD b) { return a + -b; }

TX_HD DD operator*(DD a, DD b) {
  const DD p = two_prod(a.h, b.h);
  return quick_two_sum(p.h, p.l + (a.h * b.l + a.l * b.h));
}

TX_HD DD operator/(DD a, DD b) {
  const double q = a.h / b.h;
  const DD r = a - DD{q, 0} * b;
  return quick_two_sum(q, r.h / b.h);
}

TX_HD bool operator<(DD a, DD b) { return a.h < b.h || (a.h == b.h && a.l < b.l); }

/// A double-double sum whose terms wait for one addition each. Costs at most 10 2^-106 of the
/// largest partial sum a term.
class RunningSum {
 public:
  TX_HD_MEMBER void add(DD x) {
    const DD s = two_sum(h_, x.h);
    h_ = s.h;
    l_ += s.l + x.l;
    if (++loose_ == 8) {
      const DD sum = get();
      h_ = sum.h;
      l_ = sum.l;
      loose_ = 0;
    }
  }
  TX_HD_MEMBER DD get() const { return two_sum(h_, l_); }

 private:
  double h_ = 0, l_ = 0;  // l_ is small while few terms have been added to it
  int loose_ = 0;
};

}  // namespace torchext::levels
