// Losses and slopes of rows in float64, for the exact pass. The CPU takes several rows and a vector
// V of scores at a time, a thread of CUDA one row and a double: the bits are the same.
#pragma once

#include <cmath>

#include "../logistic.h"
#include "exact_pass.h"

namespace torchext::cpu {

template <class V>
constexpr int64_t kLanesOf = sizeof(V) / sizeof(double);

/// The doubles from p, of which `count` exist; the last stands for those that do not.
template <class V>
TX_HD V load_of(const double* p, int64_t count) {
  V v;
  if (count >= kLanesOf<V>) {
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  double held[kLanesOf<V>];
  for (int64_t l = 0; l < kLanesOf<V>; ++l) held[l] = p[l < count ? l : count - 1];
  std::memcpy(&v, held, sizeof v);
  return v;
}
template <class V>
TX_HD void store_of(double* p, V v, int64_t count) {
  if (count >= kLanesOf<V>) {
    std::memcpy(p, &v, sizeof v);
    return;
  }
  double held[kLanesOf<V>];
  std::memcpy(held, &v, sizeof v);
  for (int64_t l = 0; l < count; ++l) p[l] = held[l];
}

/// Scores of some rows, which become slopes, and the sum of losses that the rows are added to.
struct RowScores {
  const double* y;       // [rows, outputs], or class numbers [rows]
  const double* weight;  // [rows] or null
  int64_t rows;
  int outputs;
  double* z;  // [rows, outputs]
  double* loss;

  TX_HD_MEMBER double weight_of(int64_t r) const { return weight != nullptr ? weight[r] : 1.0; }
};

TX_HD void squared_rows(const RowScores& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const double v = a.weight_of(r);
    double sum = 0.0;
    for (int64_t k = r * a.outputs; k < (r + 1) * a.outputs; ++k) {
      const double e = a.z[k] - a.y[k];
      a.z[k] = v * e;
      sum += 0.5 * v * e * e;
    }
    *a.loss += sum;
  }
}

template <class V>
TX_HD void logistic_rows(const RowScores& a) {
  const int64_t n = a.rows * a.outputs;
  int64_t row = 0, left = a.outputs;
  double sum = 0.0;
  for (int64_t i = 0; i < n; i += kLanesOf<V>) {
    const int64_t count = n - i < kLanesOf<V> ? n - i : kLanesOf<V>;
    const LossAndSlopeOf<V> at =
        logistic_loss(load_of<V>(a.z + i, count), load_of<V>(a.y + i, count));
    double losses[kLanesOf<V>], slopes[kLanesOf<V>];
    std::memcpy(losses, &at.loss, sizeof losses);
    std::memcpy(slopes, &at.slope, sizeof slopes);
    for (int64_t l = 0; l < count; ++l) {
      const double v = a.weight_of(row);
      a.z[i + l] = v * slopes[l];
      sum += v * losses[l];
      if (--left > 0) continue;
      *a.loss += sum;
      sum = 0.0;
      ++row;
      left = a.outputs;
    }
  }
}

/// At most kRows rows. A class number outside the classes, which the CPU refuses, gives NaN.
template <class V, int kRows>
TX_HD void softmax_rows(const RowScores& a) {
  const int64_t m = a.outputs, n = a.rows * m;
  double own[kRows], weight[kRows], total[kRows];
  for (int64_t r = 0; r < a.rows; ++r) {
    double* const z = a.z + r * m;
    double top = z[0];
    for (int64_t o = 1; o < m; ++o) top = z[o] > top ? z[o] : top;
    for (int64_t o = 0; o < m; ++o) z[o] -= top;
    const bool known = a.y[r] >= 0.0 && a.y[r] < static_cast<double>(m);
    own[r] = z[known ? static_cast<int64_t>(a.y[r]) : 0];
    weight[r] = known ? a.weight_of(r) : static_cast<double>(NAN);
  }
  for (int64_t i = 0; i < n; i += kLanesOf<V>)
    store_of(a.z + i, exp_of_negative(load_of<V>(a.z + i, n - i)), n - i);
  for (int64_t r = 0; r < a.rows; ++r) {
    total[r] = 0.0;
    for (int64_t o = 0; o < m; ++o) total[r] += a.z[r * m + o];
  }
  double logs[kRows];
  for (int64_t r = 0; r < a.rows; r += kLanesOf<V>)
    store_of(logs + r, log_of(load_of<V>(total + r, a.rows - r)), a.rows - r);
  for (int64_t r = 0; r < a.rows; ++r) {
    double* const z = a.z + r * m;
    const double v = weight[r];
    for (int64_t o = 0; o < m; ++o)
      z[o] = v * (z[o] / total[r] - (static_cast<double>(o) == a.y[r] ? 1.0 : 0.0));
    *a.loss += v * (logs[r] - own[r]);
  }
}

/// Rows [row, row + rows), at most kRows, of a pass whose scores are z.
template <class V, int kRows>
TX_HD void row_losses(const ExactPass& p, int64_t row, int64_t rows, double* z, double* loss) {
  const bool classes = p.loss == RowLoss::softmax;
  const RowScores a{p.y + row * (classes ? 1 : p.outputs),
                    p.weight != nullptr ? p.weight + row : nullptr,
                    rows,
                    p.outputs,
                    z,
                    loss};
  if (classes) return softmax_rows<V, kRows>(a);
  p.loss == RowLoss::squared ? squared_rows(a) : logistic_rows<V>(a);
}

}  // namespace torchext::cpu
