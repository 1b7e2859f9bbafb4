// The exact pass, written once for every vector width; included by each per-ISA source.
#pragma once

#include "row_loss.h"
#include "vec_math.h"

namespace torchext {

// Losses take four scores at a time, as many as there are rows between two loops over the columns;
// two where a vector holds no more.
constexpr int kLossLanes = TX_LANES < 8 ? 2 : 4;
typedef double LossVector __attribute__((vector_size(kLossLanes * 8)));
template <>
struct WordsOf<LossVector> {
  typedef uint64_t type __attribute__((vector_size(kLossLanes * 8)));
};

}  // namespace torchext

namespace torchext::cpu {
namespace {

/// At most kExactRows rows; once for all types of x.
__attribute__((noinline)) void losses(const ExactPass& p, int64_t row, int64_t rows, double* z,
                                      double* loss) {
  row_losses<LossVector, kExactRows>(p, row, rows, z, loss);
}

// A dot product has eight lanes on every instruction set: column j goes to lane j mod 8.
constexpr int kWide = TX_LANES / 2, kSets = 8 / kWide;
typedef double VD __attribute__((vector_size(kWide * 8)));

TX_INL VD wide(const double* p) {
  VD v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
TX_INL VD wide(const float* p) {
#if defined(__AVX512F__)  // g++ 12 converts in halves if it is not told
  return _mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(__AVX2__)
  return _mm256_cvtps_pd(_mm_loadu_ps(p));
#else
  VD v;
  for (int l = 0; l < kWide; ++l) v[l] = static_cast<double>(p[l]);
  return v;
#endif
}
TX_INL VD wide(const int8_t* p) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#elif defined(__AVX2__)
  int32_t four;
  std::memcpy(&four, p, sizeof four);
  return _mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
#else
  VD v;
  for (int l = 0; l < kWide; ++l) v[l] = static_cast<double>(p[l]);
  return v;
#endif
}
TX_INL VD wide(const int16_t* p) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_pd(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_pd(_mm_cvtepi16_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
  VD v;
  for (int l = 0; l < kWide; ++l) v[l] = static_cast<double>(p[l]);
  return v;
#endif
}
TX_INL void put(double* p, VD v) { std::memcpy(p, &v, sizeof v); }
TX_INL VD fused(VD a, VD b, VD c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_pd(a, b, c);
#else
  for (int l = 0; l < kWide; ++l) c[l] = __builtin_fma(a[l], b[l], c[l]);
  return c;
#endif
}

/// Sum of the eight lanes of a dot product and of the columns [j, n) that no vector took.
template <class T>
TX_INL double join(const VD* acc, const T* x, const double* w, int64_t j, int64_t n) {
  double lanes[8];
  for (int s = 0; s < kSets; ++s) put(lanes + s * kWide, acc[s]);
  for (int64_t k = j; k < n; ++k)
    lanes[k - j] = __builtin_fma(static_cast<double>(x[k]), w[k], lanes[k - j]);
  for (int half = 4; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

/// In one loop over the columns, so that memory is always being read: dot products z of the R rows
/// at x with w, and g[j] = fma(e[r], x[r][j], g[j]), r in order, for the R rows before them. The
/// rows after the next R are fetched on the way.
template <class T, int R, bool kDot, bool kAdd>
TX_INL void dot_and_add(const T* x, int64_t stride, const double* w, int64_t n, double offset,
                        const double* e, double* g, double* z) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const T* const past = x - R * stride;
  VD acc[R][kSets] = {};
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    if (kDot && j % kLine == 0) {
      for (int r = 0; r < R; ++r) __builtin_prefetch(x + (2 * R + r) * stride + j, 0, 2);
    }
    for (int s = 0; s < kSets; ++s) {
      const int64_t i = j + s * kWide;
      if (kDot) {
        const VD wi = wide(w + i);
        for (int r = 0; r < R; ++r) acc[r][s] = fused(wide(x + r * stride + i), wi, acc[r][s]);
      }
      if (kAdd) {
        VD sum = wide(g + i);
        for (int r = 0; r < R; ++r) sum = fused(VD{} + e[r], wide(past + r * stride + i), sum);
        put(g + i, sum);
      }
    }
  }
  for (int r = 0; kDot && r < R; ++r) z[r] = join(acc[r], x + r * stride, w, j, n) + offset;
  for (; kAdd && j < n; ++j) {
    for (int r = 0; r < R; ++r)
      g[j] = __builtin_fma(e[r], static_cast<double>(past[r * stride + j]), g[j]);
  }
}

/// One output: every row is read from memory once, R at a time.
template <class T, int R>
TX_INL int64_t exact_piped(const ExactPass& p, int64_t begin, int64_t end, double* gradient,
                           double* loss) {
  const int64_t n = p.cols, stride = p.stride;
  const double offset = p.offset[0];
  double e[R], z[R];
  int64_t row = begin;
  const T* x = static_cast<const T*>(p.x) + row * stride;
  for (; row + R <= end; row += R, x += R * stride) {
    row > begin ? dot_and_add<T, R, true, true>(x, stride, p.w, n, offset, e, gradient, z)
                : dot_and_add<T, R, true, false>(x, stride, p.w, n, offset, e, gradient, z);
    for (int r = 0; r < R; ++r) {
      p.z[row + r] = static_cast<float>(z[r]);
      e[r] = z[r];
    }
    losses(p, row, R, e, loss);
    for (int r = 0; r < R; ++r) gradient[n] += e[r];
  }
  if (row > begin) dot_and_add<T, R, false, true>(x, stride, p.w, n, offset, e, gradient, z);
  return row;
}

/// Dot products of R rows with w.
template <class T, int R>
TX_INL void dot_rows64(const T* x, int64_t stride, const double* w, int64_t n, double offset,
                       double* z, int64_t z_step) {
  VD acc[R][kSets] = {};
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    for (int s = 0; s < kSets; ++s) {
      const VD wj = wide(w + j + s * kWide);
      for (int r = 0; r < R; ++r)
        acc[r][s] = fused(wide(x + r * stride + j + s * kWide), wj, acc[r][s]);
    }
  }
  for (int r = 0; r < R; ++r) z[r * z_step] = join(acc[r], x + r * stride, w, j, n) + offset;
}

/// g[j] = fma(e[r], x[r][j], g[j]) for r in order.
template <class T, int R>
TX_INL void add_rows64(const T* x, int64_t stride, const double* e, int64_t e_step, int64_t n,
                       double* g) {
  int64_t j = 0;
  for (; j + kWide <= n; j += kWide) {
    VD sum = wide(g + j);
    for (int r = 0; r < R; ++r) sum = fused(VD{} + e[r * e_step], wide(x + r * stride + j), sum);
    put(g + j, sum);
  }
  for (; j < n; ++j) {
    for (int r = 0; r < R; ++r)
      g[j] = __builtin_fma(e[r * e_step], static_cast<double>(x[r * stride + j]), g[j]);
  }
}

/// Several outputs: a block of rows stays in the cache for all of them.
template <class T>
TX_INL void exact_blocks(const ExactPass& p, int64_t begin, int64_t end, double* scratch,
                         double* gradient, double* loss) {
  const int m = p.outputs;
  const int64_t n = p.cols;
  for (int64_t first = begin; first < end; first += kExactRows) {
    const T* x = static_cast<const T*>(p.x) + first * p.stride;
    const int64_t count = end - first < kExactRows ? end - first : kExactRows;
    double* const e = scratch;  // [count, outputs]: predictions, then slopes
    for (int o = 0; o < m; ++o) {
      const double* w = p.w + o * n;
      int64_t r = 0;
      for (; r + 4 <= count; r += 4)
        dot_rows64<T, 4>(x + r * p.stride, p.stride, w, n, p.offset[o], e + r * m + o, m);
      for (; r < count; ++r)
        dot_rows64<T, 1>(x + r * p.stride, p.stride, w, n, p.offset[o], e + r * m + o, m);
    }
    for (int64_t r = 0; r < count; ++r) {
      for (int o = 0; o < m; ++o)
        p.z[o * p.z_stride + first + r] = static_cast<float>(e[r * m + o]);
    }
    losses(p, first, count, e, loss);
    for (int o = 0; o < m; ++o) {
      double* g = gradient + o * (n + 1);
      int64_t r = 0;
      for (; r + 8 <= count; r += 8)
        add_rows64<T, 8>(x + r * p.stride, p.stride, e + r * m + o, m, n, g);
      for (; r < count; ++r) add_rows64<T, 1>(x + r * p.stride, p.stride, e + r * m + o, m, n, g);
      for (r = 0; r < count; ++r) g[n] += e[r * m + o];
    }
  }
}

template <class T>
TX_INL void exact_rows(const ExactPass& p, int64_t begin, int64_t end, double* scratch,
                       double* gradient, double* loss) {
  if (p.outputs == 1) begin = exact_piped<T, 4>(p, begin, end, gradient, loss);
  exact_blocks<T>(p, begin, end, scratch, gradient, loss);
}

void exact_pass_impl(const ExactPass& p, int64_t begin, int64_t end, double* scratch,
                     double* gradient, double* loss) noexcept {
  switch (p.type) {
    case RowType::f32: return exact_rows<float>(p, begin, end, scratch, gradient, loss);
    case RowType::f64: return exact_rows<double>(p, begin, end, scratch, gradient, loss);
    case RowType::i8: return exact_rows<int8_t>(p, begin, end, scratch, gradient, loss);
    case RowType::i16: return exact_rows<int16_t>(p, begin, end, scratch, gradient, loss);
  }
}

}  // namespace
}  // namespace torchext::cpu
