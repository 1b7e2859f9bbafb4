// The lattice kernels, written once; included by each per-ISA source.
#pragma once

#include "lattice_block.h"

namespace torchext::cpu {
namespace {

/// Sums over one chunk, in the lanes of tree_sum; counts and a maximum need no order.
struct ChunkSums {
  double noise[32], moved[32];
  int32_t clipped, changed, skipped;
  float peak;
};

TX_INL double butterfly(double* lane) {
  for (int half = 16; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
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
TX_INL void round_step(const StepRule<T>& s, const LatticeRule& r, const LatticeTensor& a,
                       int64_t i, T* q, const T* v, ChunkSums* sums) {
  typedef Vec<T> V;
  constexpr int kLanes = kVecBytes / sizeof(T);
  alignas(64) float uniform[kBlock];
  alignas(64) Block<T> u, t, step;
  if (!s.nearest) uniforms(r.key, i, a.stream, uniform);
  for (int j = 0; j < kBlock; ++j) u[j] = s.nearest ? T{0.5} : static_cast<T>(uniform[j]);
  const V zero = V{};
  auto skipped = zero > zero + T{1}, clipped = skipped, changed = skipped;  // counts, as -1 a lane
  V peak = zero;
  for (int j = 0; j < kBlock; j += kLanes) {
    const V before = get<V>(q + j);
    const LatticeMove<V> m =
        move(s, get<V>(v + j), before, get<V>(u + j), [](V x) { return floor_vec(x); });
    put(q + j, m.q);
    if (sums == nullptr) continue;
    skipped += ~m.finite;
    clipped += m.free != m.q;
    changed += before != m.q;
    const V size = m.q < zero ? -m.q : m.q;
    peak = size > peak ? size : peak;
    put(t + j, m.t);
    put(step + j, m.r);
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
TX_INL void real_step(const StepRule<T>& s, T* q, const T* v, ChunkSums* sums) {
  int32_t skipped = 0;
  for (int j = 0; j < kBlock; ++j) skipped += real_move(s, v[j], q + j) ? 0 : 1;
  if (sums != nullptr) sums->skipped += skipped;
}

TX_INL void finish(const LatticeRule& r, const ChunkSums& chunk, int64_t n, double* out) {
  ChunkSums c = chunk;
  out[0] = c.clipped;
  out[1] = r.lattice ? static_cast<double>(n - c.changed) : 0.0;
  out[2] = butterfly(c.noise);
  out[3] = butterfly(c.moved);
  out[4] = c.peak;
  // Where lr/delta overflows, the zeros past the end are skipped too.
  out[5] = static_cast<double>(c.skipped < n ? c.skipped : n);
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
  const StepRule<T> s = step_rule<T>(r, a, r.lr, a.delta);
  if (!s.moves) return;
  for (int64_t chunk = begin; chunk < end; chunk += kLatticeChunk) {
    const int64_t stop = chunk + kLatticeChunk < end ? chunk + kLatticeChunk : end;
    ChunkSums of_chunk{};
    ChunkSums* const into = sums != nullptr ? &of_chunk : nullptr;
    for (int64_t i = chunk; i < stop; i += kBlock) {
      const int count = stop - i < kBlock ? static_cast<int>(stop - i) : kBlock;
      alignas(64) Block<T> q, v, w, next, s0, s1, s2, s3, s4;
      const T* center = center_block(a, i, count, s0);
      read_codes(a, i, count, q);
      const T* g = read(a.grad, a.number, i, count, s1);
      const T *gc = nullptr, *gf = nullptr, *old = nullptr;
      if (s.corrected) gc = read(a.grad_center, a.number, i, count, s2);
      if (s.anchored) gf = read(a.full_grad, a.full_number, i, count, s3);
      if (s.has_momentum) old = read(a.momentum, kNumberOf<T>, i, count, s4);
      if (s.decay != T{0}) weights<kBlock>(center, s.delta, q, w);
      direction<kBlock>(s, g, gc, gf, w, old, v, next);
      if (s.has_momentum) write(a.momentum, kNumberOf<T>, i, count, next);
      s.lattice ? round_step(s, r, a, i, q, v, into) : real_step(s, q, v, into);
      weights<kBlock>(center, s.delta, q, w);
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
    weights<kBlock>(center, static_cast<T>(a.delta), q, w);
    write(a.param, a.number, i, count, w);
    if (!commit) continue;
    write(a.center, kNumberOf<T>, i, count, w);
    for (int j = 0; j < kBlock; ++j) q[j] = T{0};
    write_codes(a, i, count, q);
  }
}

template <class T>
TX_INL bool encode_range(const LatticeTensor& a, int bits, int64_t begin, int64_t end) {
  const T top = static_cast<T>((1 << (bits - 1)) - 1), delta = static_cast<T>(a.delta);
  int nan = 0;
  for (int64_t i = begin; i < end; i += kBlock) {
    const int count = end - i < kBlock ? static_cast<int>(end - i) : kBlock;
    alignas(64) Block<T> q, w, zero = {}, scratch;
    const T* x = read(static_cast<const void*>(a.param), a.number, i, count, scratch);
    for (int j = 0; j < kBlock; ++j) {
      bool no_code = false;
      q[j] = nearest_code(x[j], delta, top, &no_code);
      nan += no_code ? 1 : 0;
    }
    weights<kBlock>(zero, delta, q, w);
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
