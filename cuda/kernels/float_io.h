// Four consecutive elements of a thread, between memory and float32.
//
// A warp's row is 128 elements, four a lane, so that its accesses are coalesced and a lane's four
// are one Philox block. Types are values, not template parameters: the branch is the same for all.
#pragma once

#include "formats.h"
#include "kernels/half.h"
#include "vector_io.h"

namespace torchext::cuda {

// Loops that only ragged or misaligned ends run: unrolled they would cost the others registers.
#if defined(__CUDACC__)
#define TX_ROLLED _Pragma("unroll 1")
#else
#define TX_ROLLED
#endif

constexpr int kRow = 128;

/// Four elements that move in one access of 4, 8 or 16 bytes, or in two of 16.
template <class T>
struct alignas(sizeof(T) >= 4 ? 16 : 4 * sizeof(T)) Fours {
  T v[4];
};

/// Elements i .. i+3 of the n of a tile, those from n on as 0; `aligned`: x begins at a multiple of
/// 16 bytes and i is a multiple of 4.
template <class T>
TX_DEVICE Fours<T> load_four(const T* x, int i, int n, bool aligned) {
  if (aligned && i + 4 <= n) return *reinterpret_cast<const Fours<T>*>(x + i);
  Fours<T> four = {};
  TX_UNROLL
  for (int e = 0; e < 4; ++e)
    if (i + e < n) four.v[e] = x[i + e];
  return four;
}

template <class T>
TX_DEVICE void store_four(const Fours<T>& four, T* y, int i, int n, bool aligned) {
  if (aligned && i + 4 <= n) {
    *reinterpret_cast<Fours<T>*>(y + i) = four;
    return;
  }
  TX_UNROLL
  for (int e = 0; e < 4; ++e)
    if (i + e < n) y[i + e] = four.v[e];
}

/// Loads the fours of kRows rows, all of them before the first is used.
template <int kRows, class T, class Widen>
TX_DEVICE void load_rows(const T* x, int i, int n, bool aligned, float (*out)[4],
                         const Widen& widen) {
  TX_UNROLL
  for (int k = 0; k < kRows; ++k) {
    const Fours<T> four = load_four(x, i + k * kRow, n, aligned);
    TX_UNROLL
    for (int e = 0; e < 4; ++e) out[k][e] = widen(four.v[e]);
  }
}

template <int kRows>
TX_DEVICE void load_floats(const void* x, FloatType type, int i, int n, bool aligned,
                           float (*out)[4]) {
  switch (type) {
    case FloatType::f32:
      load_rows<kRows>(static_cast<const float*>(x), i, n, aligned, out, [](float v) { return v; });
      break;
    case FloatType::f64:
      load_rows<kRows>(static_cast<const double*>(x), i, n, aligned, out,
                       [](double v) { return static_cast<float>(v); });
      break;
    case FloatType::bf16:
      load_rows<kRows>(static_cast<const uint16_t*>(x), i, n, aligned, out,
                       [](uint16_t v) { return from_bfloat16(v); });
      break;
    default:
      load_rows<kRows>(static_cast<const uint16_t*>(x), i, n, aligned, out,
                       [](uint16_t v) { return from_float16(v); });
  }
}

template <class T, class Narrow>
TX_DEVICE void store_row(const float* v, T* y, int i, int n, bool aligned, const Narrow& narrow) {
  Fours<T> four;
  TX_UNROLL
  for (int e = 0; e < 4; ++e) four.v[e] = narrow(v[e]);
  store_four(four, y, i, n, aligned);
}

/// Rounds half precision to nearest even.
TX_DEVICE void store_floats(const float* v, void* y, FloatType type, int i, int n, bool aligned) {
  switch (type) {
    case FloatType::f32:
      store_row(v, static_cast<float*>(y), i, n, aligned, [](float f) { return f; });
      break;
    case FloatType::f64:
      store_row(v, static_cast<double*>(y), i, n, aligned,
                [](float f) { return static_cast<double>(f); });
      break;
    case FloatType::bf16:
      store_row(v, static_cast<uint16_t*>(y), i, n, aligned,
                [](float f) { return to_bfloat16(f); });
      break;
    default:
      store_row(v, static_cast<uint16_t*>(y), i, n, aligned, [](float f) { return to_float16(f); });
  }
}

/// The address of element i.
TX_DEVICE const void* element(const void* x, FloatType type, int64_t i) {
  const int shift = type == FloatType::f32 ? 2 : type == FloatType::f64 ? 3 : 1;
  return static_cast<const unsigned char*>(x) + (i << shift);
}

/// Element i as a double.
TX_DEVICE double load_double(const void* x, FloatType type, int64_t i) {
  switch (type) {
    case FloatType::f32: return static_cast<double>(static_cast<const float*>(x)[i]);
    case FloatType::f64: return static_cast<const double*>(x)[i];
    case FloatType::bf16:
      return static_cast<double>(from_bfloat16(static_cast<const uint16_t*>(x)[i]));
    default: return static_cast<double>(from_float16(static_cast<const uint16_t*>(x)[i]));
  }
}

}  // namespace torchext::cuda
