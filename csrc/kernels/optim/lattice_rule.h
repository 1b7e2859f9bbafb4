// The rule of a lattice step, number by number: CPU kernels apply it to blocks of 64 elements, CUDA
// threads to four. docs/optimizers.md has the formulas.
//
// Each line is one IEEE operation, fma where written, so that every width gives the same bits.
#pragma once

#include "../half.h"
#include "lattice.h"

#if defined(__CUDACC__)
#define TX_RULE __host__ __device__ __forceinline__
#define TX_EACH _Pragma("unroll")
#else
#define TX_RULE static inline __attribute__((always_inline))
#define TX_EACH _Pragma("GCC ivdep")
#endif

namespace torchext {

#if defined(__CUDACC__)
TX_RULE float fused(float a, float b, float c) { return fmaf(a, b, c); }
TX_RULE double fused(double a, double b, double c) { return fma(a, b, c); }
TX_RULE float even_value(float t) { return rintf(t); }
TX_RULE double even_value(double t) { return rint(t); }
TX_RULE float floor_value(float t) { return floorf(t); }
TX_RULE double floor_value(double t) { return floor(t); }
#else
TX_RULE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
TX_RULE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
TX_RULE float even_value(float t) { return __builtin_rintf(t); }
TX_RULE double even_value(double t) { return __builtin_rint(t); }
TX_RULE float floor_value(float t) { return __builtin_floorf(t); }
TX_RULE double floor_value(double t) { return __builtin_floor(t); }
#endif

template <class T>
TX_RULE bool is_finite(T x) {
  return x * T{0} == T{0};  // Inf and NaN give NaN
}

template <class T>
constexpr T kSmallestNormal = sizeof(T) == 8 ? static_cast<T>(0x1p-1022) : static_cast<T>(0x1p-126);
constexpr double kLargestStep = 0x1p24;  // lattice steps one update may ask for

/// Spacings that weights can be rounded to for the first time, whatever their arithmetic.
TX_RULE bool is_spacing(double delta) { return delta >= 0x1p-126 && delta <= 0x1.fffffep127; }

/// A LatticeRule for one tensor, in its arithmetic.
template <class T>
struct StepRule {
  T delta, k, top;  // spacing, lr/delta, largest code
  T lr, coef, decay, momentum, fresh;
  bool lattice, nearest, maximize, nesterov, decoupled, first_momentum;
  bool corrected, anchored, has_momentum;  // grad_center and full_grad; full_grad; momentum
  bool moves;                              // false: no spacing, so the weights stay
};

template <class T>
TX_RULE StepRule<T> step_rule(const LatticeRule& r, const LatticeTensor& a, double lr,
                              double delta) {
  StepRule<T> s;
  s.delta = static_cast<T>(delta);
  s.lr = static_cast<T>(lr);
  s.k = s.lr / s.delta;
  s.top = r.lattice ? static_cast<T>((1 << (r.bits - 1)) - 1) : T{0};
  s.coef = static_cast<T>(r.coef);
  s.decay = static_cast<T>(r.weight_decay);
  s.momentum = static_cast<T>(r.momentum);
  s.fresh = static_cast<T>(1.0 - r.dampening);
  s.lattice = r.lattice;
  s.nearest = r.nearest;
  s.maximize = r.maximize;
  s.nesterov = r.nesterov;
  s.decoupled = r.decoupled;
  s.first_momentum = r.first_momentum;
  s.anchored = a.full_grad != nullptr;
  s.corrected = s.anchored && a.grad_center != nullptr;
  s.has_momentum = a.momentum != nullptr;
  s.moves = !r.lattice || s.delta >= kSmallestNormal<T>;
  return s;
}

/// c + delta*q; with no centre the sum with +0 also turns -0 into +0.
template <int N, class T>
TX_RULE void weights(const T* center, T delta, const T* q, T* w) {
  TX_EACH
  for (int j = 0; j < N; ++j) w[j] = fused(delta, q[j], center[j]);
}

/// v of N elements from the gradients g, at the centre gc and in full gf, the weights w and the
/// momentum `old`, whose next value is `next`. What the rule has no use for is not read.
template <int N, class T>
TX_RULE void direction(const StepRule<T>& s, const T* g, const T* gc, const T* gf, const T* w,
                       const T* old, T* v, T* next) {
  if (s.corrected) {
    TX_EACH
    for (int j = 0; j < N; ++j) v[j] = fused(-s.coef, gc[j] - gf[j], g[j]);
  } else if (s.anchored) {  // the gradients at the centre are already subtracted
    TX_EACH
    for (int j = 0; j < N; ++j) v[j] = fused(s.coef, gf[j], g[j]);
  } else {
    TX_EACH
    for (int j = 0; j < N; ++j) v[j] = g[j];
  }
  if (s.maximize) {
    TX_EACH
    for (int j = 0; j < N; ++j) v[j] = -v[j];
  }
  if (s.decay != T{0} && !s.decoupled) {
    TX_EACH
    for (int j = 0; j < N; ++j) v[j] = fused(s.decay, w[j], v[j]);
  }
  if (s.has_momentum) {
    if (s.first_momentum) {
      TX_EACH
      for (int j = 0; j < N; ++j) next[j] = v[j];
    } else {
      TX_EACH
      for (int j = 0; j < N; ++j) next[j] = fused(s.momentum, old[j], s.fresh * v[j]);
    }
    if (s.nesterov) {
      TX_EACH
      for (int j = 0; j < N; ++j) v[j] = fused(s.momentum, next[j], v[j]);
    } else {
      TX_EACH
      for (int j = 0; j < N; ++j) v[j] = next[j];
    }
    // An element whose gradient is not finite is skipped: its momentum stays what it was.
    TX_EACH
    for (int j = 0; j < N; ++j) next[j] = is_finite(next[j]) ? next[j] : old[j];
  }
  if (s.decay != T{0} && s.decoupled) {
    TX_EACH
    for (int j = 0; j < N; ++j) v[j] = fused(s.decay, w[j], v[j]);
  }
}

/// A step t in units of delta, rounded to r; q = before + r where that is a code, `free` anyhow.
template <class V>
struct LatticeMove {
  V t, r, free, q;
  decltype(V{} == V{}) finite;
};

/// Stochastic rounding of a step along v, u uniform (1/2: nearest); V is T or a vector of T.
/// `floor` is exact for |t| <= 2^24. A step that is not finite is 0.
template <class T, class V, class Floor>
TX_RULE LatticeMove<V> move(const StepRule<T>& s, V v, V before, V u, const Floor& floor) {
  const T most = static_cast<T>(kLargestStep);
  const V zero = V{}, one = zero + T{1}, high = zero + s.top, low = -high - one;
  LatticeMove<V> m;
  m.t = -(s.k * v);
  m.finite = m.t * T{0} == zero;
  m.t = m.finite ? m.t : zero;
  m.t = m.t < zero - most ? zero - most : m.t;
  m.t = m.t > zero + most ? zero + most : m.t;
  const V down = floor(m.t);
  m.r = down + (u < m.t - down ? one : zero);
  m.free = before + m.r;
  m.q = m.free < low ? low : m.free;
  m.q = m.q > high ? high : m.q;
  return m;
}

/// SVRG's real step: q - lr*v; where that is not finite, q.
template <class T>
TX_RULE bool real_move(const StepRule<T>& s, T v, T* q) {
  const T next = fused(-s.lr, v, *q);
  const bool finite = is_finite(next);
  *q = finite ? next : *q;
  return finite;
}

/// The code nearest to x, ties to even, saturating; 0 for NaN.
template <class T>
TX_RULE T nearest_code(T x, T delta, T top, bool* nan) {
  T code = even_value(x / delta);
  *nan = !(code < T{0} || code >= T{0});
  code = *nan ? T{0} : code;
  code = code < -top - T{1} ? -top - T{1} : code;
  return code > top ? top : code;
}

TX_RULE double number_at(const void* x, Number number, int64_t i) {
  switch (number) {
    case Number::f32: return static_cast<const float*>(x)[i];
    case Number::f64: return static_cast<const double*>(x)[i];
    case Number::bf16: return from_bfloat16(static_cast<const uint16_t*>(x)[i]);
    default: return from_float16(static_cast<const uint16_t*>(x)[i]);
  }
}

/// g + weight_decay*center of element i: one fma in the arithmetic of the tensor.
TX_RULE double decayed(const LatticeTensor& a, double weight_decay, double g, int64_t i) {
  if (a.center == nullptr) return g;
  if (a.number == Number::f64)
    return fused(weight_decay, static_cast<const double*>(a.center)[i], g);
  return fused(static_cast<float>(weight_decay), static_cast<const float*>(a.center)[i],
               static_cast<float>(g));
}

}  // namespace torchext
