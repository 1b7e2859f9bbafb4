// Blocks of 64 elements between memory and the arithmetic type; included by each per-ISA source.
//
// Loops of constant length, which the compiler turns into vectors of the source's instruction set,
// and its vector types where it would not: without contraction and fast-math the bits cannot depend
// on the width.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include "../cpu/philox_avx512.h"
#elif defined(__AVX2__)
#include "../cpu/philox_avx2.h"
#endif

#include "lattice_rule.h"

namespace torchext::cpu {
namespace {

#ifndef TX_INL
#define TX_INL static inline __attribute__((always_inline))
#endif

constexpr int kBlock = 64;

template <class T>
using Block = T[kBlock];

/// How centres, momenta and sums of the arithmetic type lie in memory.
template <class T>
constexpr Number kNumberOf = sizeof(T) == 8 ? Number::f64 : Number::f32;

#if defined(__AVX512F__)
constexpr int kVecBytes = 64;
#elif defined(__AVX2__)
constexpr int kVecBytes = 32;
#else
constexpr int kVecBytes = 16;
#endif
template <class T>
struct VecOf {
  typedef T Type __attribute__((vector_size(kVecBytes)));
};
template <class T>
using Vec = typename VecOf<T>::Type;

template <class V, class T>
TX_INL V get(const T* from) {
  V v;
  memcpy(&v, from, sizeof v);
  return v;
}
template <class V, class T>
TX_INL void put(T* to, V v) {
  memcpy(to, &v, sizeof v);
}

/// Applies f to `count` elements, to a whole block by a loop of constant length.
template <class F>
TX_INL void over(int count, const F& f) {
  if (count == kBlock) {
#pragma GCC ivdep
    for (int j = 0; j < kBlock; ++j) f(j);
  } else {
    for (int j = 0; j < count; ++j) f(j);
  }
}

/// Zeros in a block that will not be filled.
template <class T>
TX_INL void clear_short(int count, T* block) {
  if (count == kBlock) return;
  for (int j = 0; j < kBlock; ++j) block[j] = T{0};
}

/// Elements [i, i + count), where they lie if that is already the type, else widened into `into`.
template <class T>
TX_INL const T* read(const void* from, Number number, int64_t i, int count, T* into) {
  if (number == kNumberOf<T> && count == kBlock) return static_cast<const T*>(from) + i;
  clear_short(count, into);
  switch (number) {
    case Number::f32: {
      const auto* p = static_cast<const float*>(from) + i;
      over(count, [=](int j) { into[j] = static_cast<T>(p[j]); });
      break;
    }
    case Number::f64: {
      const auto* p = static_cast<const double*>(from) + i;
      over(count, [=](int j) { into[j] = static_cast<T>(p[j]); });
      break;
    }
    case Number::bf16: {
      const auto* p = static_cast<const uint16_t*>(from) + i;
      over(count, [=](int j) { into[j] = from_bfloat16(p[j]); });
      break;
    }
    default: {
      const auto* p = static_cast<const uint16_t*>(from) + i;
      over(count, [=](int j) { into[j] = from_float16(p[j]); });
      break;
    }
  }
  return into;
}

/// Rounds to the type in memory; T is double only where that is double.
template <class T>
TX_INL void write(void* to, Number number, int64_t i, int count, const T* values) {
  if (sizeof(T) == 8) {
    auto* p = static_cast<double*>(to) + i;
    over(count, [=](int j) { p[j] = values[j]; });
  } else if (number == Number::f32) {
    auto* p = static_cast<float*>(to) + i;
    over(count, [=](int j) { p[j] = static_cast<float>(values[j]); });
  } else if (number == Number::bf16) {
    auto* p = static_cast<uint16_t*>(to) + i;
    over(count, [=](int j) { p[j] = to_bfloat16(static_cast<float>(values[j])); });
  } else {
    auto* p = static_cast<uint16_t*>(to) + i;
    over(count, [=](int j) { p[j] = to_float16(static_cast<float>(values[j])); });
  }
}

template <class T>
TX_INL void read_codes(const LatticeTensor& a, int64_t i, int count, T* q) {
  clear_short(count, q);
  switch (a.store) {
    case CodeStore::int4: {
      const auto* p = static_cast<const uint8_t*>(a.q) + i / 2;
      for (int k = 0; k < (count + 1) / 2; ++k) {
        q[2 * k] = static_cast<T>(static_cast<int8_t>(p[k] << 4) >> 4);
        q[2 * k + 1] = static_cast<T>(static_cast<int8_t>(p[k]) >> 4);
      }
      break;
    }
    case CodeStore::int8: {
      const auto* p = static_cast<const int8_t*>(a.q) + i;
      over(count, [=](int j) { q[j] = static_cast<T>(p[j]); });
      break;
    }
    case CodeStore::int16: {
      const auto* p = static_cast<const int16_t*>(a.q) + i;
      over(count, [=](int j) { q[j] = static_cast<T>(p[j]); });
      break;
    }
    case CodeStore::f32: {
      const auto* p = static_cast<const float*>(a.q) + i;
      over(count, [=](int j) { q[j] = static_cast<T>(p[j]); });
      break;
    }
    default: {
      const auto* p = static_cast<const double*>(a.q) + i;
      over(count, [=](int j) { q[j] = static_cast<T>(p[j]); });
      break;
    }
  }
}

template <class T>
TX_INL void write_codes(const LatticeTensor& a, int64_t i, int count, const T* q) {
  switch (a.store) {
    case CodeStore::int4: {
      auto* p = static_cast<uint8_t*>(a.q) + i / 2;
      for (int k = 0; k < (count + 1) / 2; ++k) {  // past the end q is 0
        const auto low = static_cast<unsigned>(static_cast<int>(q[2 * k]));
        const auto high = static_cast<unsigned>(static_cast<int>(q[2 * k + 1]));
        p[k] = static_cast<uint8_t>((low & 15u) | high << 4);
      }
      break;
    }
    case CodeStore::int8: {
      auto* p = static_cast<int8_t*>(a.q) + i;
      over(count, [=](int j) { p[j] = static_cast<int8_t>(static_cast<int>(q[j])); });
      break;
    }
    case CodeStore::int16: {
      auto* p = static_cast<int16_t*>(a.q) + i;
      over(count, [=](int j) { p[j] = static_cast<int16_t>(static_cast<int>(q[j])); });
      break;
    }
    case CodeStore::f32: {
      auto* p = static_cast<float*>(a.q) + i;
      over(count, [=](int j) { p[j] = static_cast<float>(q[j]); });
      break;
    }
    default: {
      auto* p = static_cast<double*>(a.q) + i;
      over(count, [=](int j) { p[j] = static_cast<double>(q[j]); });
      break;
    }
  }
}

/// The uniforms of elements i .. i+63; i is a multiple of 4.
TX_INL void uniforms(Key key, int64_t i, uint32_t stream, float* u) {
  const auto block = static_cast<uint64_t>(i) / 4;
#if defined(__AVX512F__)
  __m512i words[4];
  philox_64(key, block, stream, 0, words);
  for (int k = 0; k < 4; ++k) _mm512_storeu_ps(u + 16 * k, unit_16(words[k]));
#elif defined(__AVX2__)
  for (unsigned k = 0; k < 4; ++k) {
    __m256i low, high;
    philox_16(key, block + 4 * k, stream, 0, &low, &high);
    _mm256_storeu_ps(u + 16 * k, unit_8(low));
    _mm256_storeu_ps(u + 16 * k + 8, unit_8(high));
  }
#else
  for (unsigned k = 0; k < 16; ++k) {
    const Words r = draw4(key, block + k, stream, 0);
    for (unsigned j = 0; j < 4; ++j) u[4 * k + j] = unit(r.w[j]);
  }
#endif
}

}  // namespace
}  // namespace torchext::cpu
