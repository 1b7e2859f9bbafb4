// Small vectors of the native width (TX_LANES floats) and the few functions a residual needs.
//
// Written with the compiler's vector types: every operation is one IEEE operation per element, so a
// translation unit gives the same bits whatever its width. Include only from per-ISA sources, and
// from CUDA kernels with TX_ONE_LANE: a thread's vector is then one float.
#pragma once

#include <cstdint>
#include <cstring>

#include "../philox.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace torchext::cpu {
namespace {

#if defined(TX_ONE_LANE)
#define TX_LANES 1
#elif defined(__AVX512F__)
#define TX_LANES 16
#elif defined(__AVX2__)
#define TX_LANES 8
#else
#define TX_LANES 4
#endif

#if defined(TX_ONE_LANE)
#define TX_INL TX_HD

typedef float VF;
typedef int32_t VI;

TX_INL VF to_float(VI v) { return static_cast<float>(v); }
TX_INL VI to_int(VF v) { return static_cast<int32_t>(v); }
TX_INL VI bits_of(VF v) {
  VI i;
  std::memcpy(&i, &v, sizeof i);
  return i;
}
TX_INL VF float_of(VI i) {
  VF v;
  std::memcpy(&v, &i, sizeof v);
  return v;
}
#else
#define TX_INL static inline __attribute__((always_inline))

typedef float VF __attribute__((vector_size(TX_LANES * 4)));
typedef int32_t VI __attribute__((vector_size(TX_LANES * 4)));
typedef uint16_t VH __attribute__((vector_size(TX_LANES * 2)));
typedef int8_t VB __attribute__((vector_size(TX_LANES)));

constexpr int kParts = 64 / static_cast<int>(sizeof(VF));  // vectors of every 16-lane reduction

TX_INL VF to_float(VI v) { return __builtin_convertvector(v, VF); }
TX_INL VI to_int(VF v) { return __builtin_convertvector(v, VI); }  // truncates
TX_INL VI bits_of(VF v) { return reinterpret_cast<VI>(v); }
TX_INL VF float_of(VI v) { return reinterpret_cast<VF>(v); }

TX_INL VF fused(VF a, VF b, VF c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  for (int l = 0; l < TX_LANES; ++l) c[l] = __builtin_fmaf(a[l], b[l], c[l]);
  return c;
#endif
}

/// sum[l] += v[l], in double.
TX_INL void add_to(double* sum, VF v) {
#if defined(__AVX512F__)
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v)),
                high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
  _mm512_storeu_pd(sum, _mm512_add_pd(_mm512_loadu_pd(sum), low));
  _mm512_storeu_pd(sum + 8, _mm512_add_pd(_mm512_loadu_pd(sum + 8), high));
#elif defined(__AVX2__)
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v)),
                high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
  _mm256_storeu_pd(sum, _mm256_add_pd(_mm256_loadu_pd(sum), low));
  _mm256_storeu_pd(sum + 4, _mm256_add_pd(_mm256_loadu_pd(sum + 4), high));
#else
  for (int l = 0; l < TX_LANES; ++l) sum[l] += static_cast<double>(v[l]);
#endif
}
#endif

TX_INL VF load(const float* p) {
  VF v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
TX_INL VI load_int(const int32_t* p) {
  VI v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
TX_INL void store(float* p, VF v) { std::memcpy(p, &v, sizeof v); }
TX_INL VF splat(float s) { return VF{} + s; }
TX_INL VF absolute(VF v) { return float_of(bits_of(v) & 0x7fffffff); }
TX_INL VF larger(VF a, VF b) { return a > b ? a : b; }  // b if one is NaN

/// Reduces 16 lanes by halves; `lanes` is overwritten.
TX_INL float tree16(float* lanes) {
  for (int half = 8; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}
TX_INL float peak16(const float* lanes) {
  float m = 0.0f;
  for (int l = 0; l < 16; ++l) m = lanes[l] > m ? lanes[l] : m;
  return m;
}

/// exp(x) = scale (1 + rest), x clamped to [-87, 87].
struct ExpParts {
  VF scale, rest;
};
TX_INL ExpParts exp_parts(VF x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  x = x > 87.0f ? splat(87.0f) : x;
  const VF magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const VF k = (x * 1.44269504f + magic) - magic;
  const VF r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  VF p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {float_of((to_int(k) + 127) << 23), p * (r * r) + r};
}

/// exp(x), x clamped to [-87, 87]; about 1 ulp.
TX_INL VF exp_approx(VF x) {
  const ExpParts e = exp_parts(x);
  return (e.rest + 1.0f) * e.scale;
}

/// exp(x) - 1, x clamped to [-87, 87]; a small x loses nothing.
TX_INL VF expm1_approx(VF x) {
  const ExpParts e = exp_parts(x);
  return e.rest * e.scale + (e.scale - 1.0f);
}

/// log(1 + u) for u in [0, 1], from the series of atanh(u / (2 + u)).
TX_INL VF log1p_unit(VF u) {
  const VF s = u / (u + 2.0f), q = s * s;
  VF p = splat(1.0f / 13.0f);
  p = p * q + 1.0f / 11.0f;
  p = p * q + 1.0f / 9.0f;
  p = p * q + 1.0f / 7.0f;
  p = p * q + 1.0f / 5.0f;
  p = p * q + 1.0f / 3.0f;
  p = p * q + 1.0f;
  return (s + s) * p;
}

}  // namespace
}  // namespace torchext::cpu
