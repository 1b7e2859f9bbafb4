// Rows on a grid, written once; included by each per-ISA source, whose compiler flags decide the
// width.
#pragma once

#include "grid_rows.h"

namespace torchext::cpu {
namespace {

/// Adding and taking it off again rounds to the nearest integer, ties to even; and, unlike rint, in
/// vectors on every processor.
constexpr double kRound = 0x1.8p52;
constexpr int64_t kStrip = 256;  // values that are narrowed together

template <class T, class U>
void run(const GridRows& p, int64_t begin, int64_t end) noexcept {
  const double top = p.top, *const mean = p.mean, *const inverse = p.inverse;
  const int64_t cols = p.cols;
  int32_t u[kStrip];
  for (int64_t k = begin; k < end; ++k) {
    const T* x = static_cast<const T*>(p.x) + k * p.row_stride;
    U* out = static_cast<U*>(p.codes) + k * p.pitch;
    int64_t square = 0;
    for (int64_t first = 0; first < cols; first += kStrip) {
      const int64_t count = cols - first < kStrip ? cols - first : kStrip;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t j = first + i;
        double t = (static_cast<double>(x[j]) - mean[j]) * inverse[j];
        t = t < top ? t : top;
        t = t > -top ? t : -top;
        u[i] = static_cast<int32_t>(t + kRound - kRound);
      }
      for (int64_t i = 0; i < count; ++i) out[first + i] = static_cast<U>(u[i]);
      for (int64_t i = 0; i < count; ++i) square += u[i] * u[i];
    }
    p.squares[k] = static_cast<double>(square);
  }
}

/// No grid.
template <class T>
void run_plain(const GridRows& p, int64_t begin, int64_t end) noexcept {
  const double *const mean = p.mean, *const inverse = p.inverse;
  const int64_t cols = p.cols;
  for (int64_t k = begin; k < end; ++k) {
    const T* x = static_cast<const T*>(p.x) + k * p.row_stride;
    float* out = static_cast<float*>(p.codes) + k * p.pitch;
    double lanes[8] = {};
    const auto one = [&](int64_t j, int64_t lane) {
      const auto u = static_cast<float>((static_cast<double>(x[j]) - mean[j]) * inverse[j]);
      out[j] = u;
      lanes[lane] += static_cast<double>(u) * static_cast<double>(u);
    };
    int64_t j = 0;
    for (; j + 8 <= cols; j += 8) {
      for (int64_t l = 0; l < 8; ++l) one(j + l, l);
    }
    for (int64_t l = 0; j < cols; ++j, ++l) one(j, l);
    double square = 0.0;
    for (const double lane : lanes) square += lane;
    p.squares[k] = square;
  }
}

template <class T>
void run_kind(const GridRows& p, int64_t begin, int64_t end) noexcept {
  switch (p.kind) {
    case GridCode::i8: return run<T, int8_t>(p, begin, end);
    case GridCode::i16: return run<T, int16_t>(p, begin, end);
    case GridCode::f32:
      return p.top > 0 ? run<T, float>(p, begin, end) : run_plain<T>(p, begin, end);
  }
}

void grid_rows_impl(const GridRows& p, int64_t begin, int64_t end) noexcept {
  (p.f64 ? run_kind<double> : run_kind<float>)(p, begin, end);
}

}  // namespace
}  // namespace torchext::cpu
