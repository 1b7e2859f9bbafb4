// The lattice kernels, written once; included by each per-ISA source.
#pragma once

#include "lattice_block.h"

namespace torchext::cpu {
namespace {

template <class T>
constexpr T kSmallestNormal = sizeof(T) == 8 ? static_cast<T>(0x1p-1022) : static_cast<T>(0x1p-126);
constexpr double kLargestStep = 0x1p24;  // lattice steps one update may ask for

/// Sums over one chunk, in the lanes of tree_sum; counts and a maximum need no order.
struct ChunkSums {
  double noise[32], moved[32];
  int32_t clipped, changed, skipped;
  float peak;
};

template <class T>
TX_INL bool is_finite(T x) {
  return x * T{0} == T{0};  // Inf and NaN give NaN
}

TX_INL double butterfly(double* lane) {
  for (int half = 16; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

/// c + delta*q; with no centre the sum with +0 also turns -0 into +0.
template <class T>
TX_INL void weights(const T* center, T delta, const T* q, T* w) {
#pragma GCC ivdep
  for (int j = 0; j < kBlock; ++j) w[j] = fused(delta, q[j], center[j]);
}

/// v of one block, and the momentum written back; elements past the end are zeros.
template <class T>
TX_INL void direction(const LatticeRule& r, const LatticeTensor& a, int64_t i, int count,
                      const T* center, const T* q, T* v) {
  alignas(64) Block<T> s0, s1, s2, w;
  const T* g = read(a.grad, a.number, i, count, s0);
  const T coef = static_cast<T>(r.coef), decay = static_cast<T>(r.weight_decay);
  if (a.grad_center != nullptr && a.full_grad != nullptr) {
    const T* gc = read(a.grad_center, a.number, i, count, s1);
    const T* gf = read(a.full_grad, a.full_number, i, count, s2);
    for (int j = 0; j < kBlock; ++j) v[j] = fused(-coef, gc[j] - gf[j], g[j]);
  } else if (a.full_grad != nullptr) {  // the gradients at the centre are already subtracted
    const T* gf = read(a.full_grad, a.full_number, i, count, s2);
    for (int j = 0; j < kBlock; ++j) v[j] = fused(coef, gf[j], g[j]);
  } else {
    for (int j = 0; j < kBlock; ++j) v[j] = g[j];
  }
  if (r.maximize) {
    for (int j = 0; j < kBlock; ++j) v[j] = -v[j];
  }
  if (decay != T{0}) weights(center, static_cast<T>(a.delta), q, w);
  if (decay != T{0} && !r.decoupled) {
    for (int j = 0; j < kBlock; ++j) v[j] = fused(decay, w[j], v[j]);
  }
  if (a.momentum != nullptr) {
    alignas(64) Block<T> kept, next;
    const T* old = read(a.momentum, kNumberOf<T>, i, count, kept);
    const T mom = static_cast<T>(r.momentum), fresh = static_cast<T>(1.0 - r.dampening);
    if (r.first_momentum) {
      for (int j = 0; j < kBlock; ++j) next[j] = v[j];
    } else {
      for (int j = 0; j < kBlock; ++j) next[j] = fused(mom, old[j], fresh * v[j]);
    }
    if (r.nesterov) {
      for (int j = 0; j < kBlock; ++j) v[j] = fused(mom, next[j], v[j]);
    } else {
      for (int j = 0; j < kBlock; ++j) v[j] = next[j];
    }
    // An element whose gradient is not finite is skipped: its momentum stays what it was.
    for (int j = 0; j < kBlock; ++j) next[j] = is_finite(next[j]) ? next[j] : old[j];
    write(a.momentum, kNumberOf<T>, i, count, next);
  }
  if (decay != T{0} && r.decoupled) {
    for (int j = 0; j < kBlock; ++j) v[j] = fused(decay, w[j], v[j]);
  }
}

/// Largest integer <= x for |x| <= 2^24; -0 becomes +0.
TX_INL Vec<float> floor_vec(Vec<float> x) {
  typedef int32_t Int __attribute__((vector_size(kVecBytes)));
  const Vec<float> whole = __builtin_convertvector(__builtin_convertvector(x, Int), Vec<float>);
  return whole > x ? whole - 1.0f : whole;
}
TX_INL Vec<double> floor_vec(Vec<double> x) {
  const double magic = 0x1.8p52;  // adding it rounds to an integer
  const Vec<double> whole = (x + magic) - magic;
  return whole > x ? whole - 1.0 : whole;
}

/// q from the direction v by stochastic (or nearest) rounding of its step.
template <class T>
TX_INL void round_step(const LatticeRule& r, const LatticeTensor& a, int64_t i, T* q, const T* v,
                       ChunkSums* sums) {
  typedef Vec<T> V;
  constexpr int kLanes = kVecBytes / sizeof(T);
  const T k = static_cast<T>(r.lr) / static_cast<T>(a.delta);
  const T high = static_cast<T>((1 << (r.bits - 1)) - 1), most = static_cast<T>(kLargestStep);
  const V zero = V{}, one = zero + T{1}, top = zero + high, bottom = -top - one;
  alignas(64) float uniform[kBlock];
  alignas(64) Block<T> u, t, step;
  if (!r.nearest) uniforms(r.key, i, a.stream, uniform);
  for (int j = 0; j < kBlock; ++j) u[j] = r.nearest ? T{0.5} : static_cast<T>(uniform[j]);
  auto skipped = zero > one, clipped = skipped, changed = skipped;  // counts, as -1 a lane
  V peak = zero;
  for (int j = 0; j < kBlock; j += kLanes) {
    V x = -(k * get<V>(v + j));
    const auto finite = x * T{0} == zero;
    x = finite ? x : zero;
    x = x < -most ? zero - most : x;
    x = x > most ? zero + most : x;
    const V low = floor_vec(x), before = get<V>(q + j);
    const V rounded = low + (get<V>(u + j) < x - low ? one : zero), free = before + rounded;
    V moved = free < bottom ? bottom : free;
    moved = moved > top ? top : moved;
    put(q + j, moved);
    if (sums == nullptr) continue;
    skipped += ~finite;
    clipped += free != moved;
    changed += before != moved;
    const V size = moved < zero ? -moved : moved;
    peak = size > peak ? size : peak;
    put(t + j, x);
    put(step + j, rounded);
  }
  if (sums == nullptr) return;
  for (int l = 0; l < kLanes; ++l) {
    sums->skipped -= static_cast<int32_t>(skipped[l]);
    sums->clipped -= static_cast<int32_t>(clipped[l]);
    sums->changed -= static_cast<int32_t>(changed[l]);
    sums->peak =
        static_cast<float>(peak[l]) > sums->peak ? static_cast<float>(peak[l]) : sums->peak;
  }
  alignas(64) Block<double> x, e;
  for (int j = 0; j < kBlock; ++j) x[j] = static_cast<double>(t[j]);
  for (int j = 0; j < kBlock; ++j) e[j] = static_cast<double>(step[j]) - x[j];
  for (int j = 0; j < 32; ++j)
    sums->noise[j] = sums->noise[j] + e[j] * e[j] + e[j + 32] * e[j + 32];
  for (int j = 0; j < 32; ++j)
    sums->moved[j] = sums->moved[j] + x[j] * x[j] + x[j + 32] * x[j + 32];
}

/// Real q of SVRG: q - lr*v, elements with a step that is not finite left alone.
template <class T>
TX_INL void real_step(const LatticeRule& r, T* q, const T* v, ChunkSums* sums) {
  const T rate = static_cast<T>(r.lr);
  int32_t skipped = 0;
  for (int j = 0; j < kBlock; ++j) {
    const T next = fused(-rate, v[j], q[j]);
    const bool finite = is_finite(next);
    skipped += finite ? 0 : 1;
    q[j] = finite ? next : q[j];
  }
  if (sums != nullptr) sums->skipped += skipped;
}

TX_INL void finish(const LatticeRule& r, const ChunkSums& chunk, int64_t n, double* out) {
  ChunkSums c = chunk;
  out[0] = c.clipped;
  out[1] = r.lattice ? static_cast<double>(n - c.changed) : 0.0;
  out[2] = butterfly(c.noise);
  out[3] = butterfly(c.moved);
  out[4] = c.peak;
  out[5] = c.skipped;
}

template <class T>
TX_INL const T* center_block(const LatticeTensor& a, int64_t i, int count, T* into) {
  if (a.center != nullptr)
    return read(static_cast<const void*>(a.center), kNumberOf<T>, i, count, into);
  for (int j = 0; j < kBlock; ++j) into[j] = T{0};
  return into;
}

template <class T>
TX_INL void step_range(const LatticeRule& r, const LatticeTensor& a, int64_t begin, int64_t end,
                       double* sums) {
  const T delta = static_cast<T>(a.delta);
  if (r.lattice && !(delta >= kSmallestNormal<T>)) return;  // no spacing: the weights stay
  for (int64_t chunk = begin; chunk < end; chunk += kLatticeChunk) {
    const int64_t stop = chunk + kLatticeChunk < end ? chunk + kLatticeChunk : end;
    ChunkSums of_chunk{};
    ChunkSums* const into = sums != nullptr ? &of_chunk : nullptr;
    for (int64_t i = chunk; i < stop; i += kBlock) {
      const int count = stop - i < kBlock ? static_cast<int>(stop - i) : kBlock;
      alignas(64) Block<T> q, v, w, scratch;
      const T* center = center_block(a, i, count, scratch);
      read_codes(a, i, count, q);
      direction(r, a, i, count, center, q, v);
      r.lattice ? round_step(r, a, i, q, v, into) : real_step(r, q, v, into);
      weights(center, delta, q, w);
      write_codes(a, i, count, q);
      write(a.param, a.number, i, count, w);
    }
    if (sums != nullptr)
      finish(r, of_chunk, stop - chunk, sums + chunk / kLatticeChunk * kLatticeSums);
  }
}

template <class T>
TX_INL void materialize_range(const LatticeTensor& a, bool commit, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kBlock) {
    const int count = end - i < kBlock ? static_cast<int>(end - i) : kBlock;
    alignas(64) Block<T> q, w, scratch;
    const T* center = center_block(a, i, count, scratch);
    read_codes(a, i, count, q);
    weights(center, static_cast<T>(a.delta), q, w);
    write(a.param, a.number, i, count, w);
    if (!commit) continue;
    write(a.center, kNumberOf<T>, i, count, w);
    for (int j = 0; j < kBlock; ++j) q[j] = T{0};
    write_codes(a, i, count, q);
  }
}

template <class T>
TX_INL bool encode_range(const LatticeTensor& a, int bits, int64_t begin, int64_t end) {
  const T top = static_cast<T>((1 << (bits - 1)) - 1), bottom = -top - T{1};
  const T delta = static_cast<T>(a.delta);
  int nan = 0;
  for (int64_t i = begin; i < end; i += kBlock) {
    const int count = end - i < kBlock ? static_cast<int>(end - i) : kBlock;
    alignas(64) Block<T> q, w, zero = {}, scratch;
    const T* x = read(static_cast<const void*>(a.param), a.number, i, count, scratch);
    for (int j = 0; j < kBlock; ++j) {
      T code = even_value(x[j] / delta);
      nan += __builtin_isnan(code) ? 1 : 0;
      code = __builtin_isnan(code) ? T{0} : code;
      code = code < bottom ? bottom : code;
      q[j] = code > top ? top : code;
    }
    weights(zero, delta, q, w);
    write_codes(a, i, count, q);
    write(a.param, a.number, i, count, w);
  }
  return nan != 0;
}

void step_impl(const LatticeRule& r, const LatticeTensor& a, int64_t begin, int64_t end,
               double* sums) noexcept {
  a.number == Number::f64 ? step_range<double>(r, a, begin, end, sums)
                          : step_range<float>(r, a, begin, end, sums);
}

void materialize_impl(const LatticeTensor& a, int64_t begin, int64_t end) noexcept {
  a.number == Number::f64 ? materialize_range<double>(a, false, begin, end)
                          : materialize_range<float>(a, false, begin, end);
}

void commit_impl(const LatticeTensor& a, int64_t begin, int64_t end) noexcept {
  a.number == Number::f64 ? materialize_range<double>(a, true, begin, end)
                          : materialize_range<float>(a, true, begin, end);
}

bool encode_impl(const LatticeTensor& a, int bits, int64_t begin, int64_t end) noexcept {
  return a.number == Number::f64 ? encode_range<double>(a, bits, begin, end)
                                 : encode_range<float>(a, bits, begin, end);
}

constexpr LatticeKernels kLattice = {step_impl, materialize_impl, commit_impl, encode_impl};

}  // namespace
}  // namespace torchext::cpu
