#include "kernels/column_stats.h"

namespace torchext::cpu {
namespace {

template <class T>
void run(const ColumnBlock& block, int64_t row, int64_t rows, int64_t begin, int64_t end,
         double* sum, double* lo, double* hi) noexcept {
  for (int64_t r = row; r < row + rows; ++r) {
    const T* x = static_cast<const T*>(block.x) + r * block.row_stride;
    for (int64_t j = begin; j < end; ++j) {
      const double v = static_cast<double>(x[j]);
      sum[j] += v;
      lo[j] = v < lo[j] ? v : lo[j];
      hi[j] = v > hi[j] ? v : hi[j];
    }
  }
}

template <class T>
void add_weighted(const ColumnBlock& block, int64_t row, int64_t rows, int64_t cols,
                  const Weighing weighing, double* sum) noexcept {
  for (int64_t r = row; r < row + rows; ++r) {
    const T* x = static_cast<const T*>(block.x) + r * block.row_stride;
    const double v = weighing.of_row(r);
    for (int64_t j = 0; j < cols; ++j) sum[j] += weighing.term(v, static_cast<double>(x[j]), j);
  }
}

}  // namespace

void column_stats_ref(const ColumnBlock& block, int64_t row, int64_t rows, int64_t begin,
                      int64_t end, double* sum, double* lo, double* hi) noexcept {
  (block.f64 ? run<double> : run<float>)(block, row, rows, begin, end, sum, lo, hi);
}

void weighted_sums(const ColumnBlock& block, int64_t row, int64_t rows, int64_t cols,
                   const Weighing& weighing, double* sum) noexcept {
  (block.f64 ? add_weighted<double> : add_weighted<float>)(block, row, rows, cols, weighing, sum);
}

}  // namespace torchext::cpu
