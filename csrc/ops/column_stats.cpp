// First pass over a table: sums, ranges and the first value that is not finite.
#include "kernels/column_stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "column_stats_args.h"

namespace torchext::ops {
namespace {

constexpr int64_t kRound = 16;  // chunks whose sums are held at a time; they are added up in order

/// Position of the first NaN or infinity among rows [row, end), or -1.
int64_t first_not_finite(const Matrix& m, int64_t row, int64_t end) {
  for (int64_t r = row; r < end; ++r) {
    for (int64_t j = 0; j < m.cols; ++j) {
      const int64_t at = r * m.row_stride + j;
      const double v =
          m.f64 ? static_cast<const double*>(m.data)[at] : static_cast<const float*>(m.data)[at];
      if (!std::isfinite(v)) return r * m.cols + j;
    }
  }
  return -1;
}

/// Adds all rows to the state; position of the first value that is not finite, or -1.
int64_t add_rows(const ColumnStatsArguments& in) {
  const Matrix& m = in.x;
  double* const out = in.state;
  const cpu::ColumnBlock block{m.data, m.f64, m.row_stride};
  auto* const kernel = cpu::column_stats_kernel();
  const int64_t n = m.cols, chunks = (m.rows + cpu::kStatsChunk - 1) / cpu::kStatsChunk;
  const int64_t size = 4 * n;  // doubles of a chunk: sum, least, greatest, weighted sum
  std::vector<double> work(static_cast<size_t>(std::min(chunks, kRound) * size));
  for (int64_t first = 0; first < chunks; first += kRound) {
    const int64_t count = std::min(kRound, chunks - first);
    parallel_for(count, 1, [&](int64_t b, int64_t e) {
      for (int64_t c = b; c < e; ++c) {
        double *sum = work.data() + c * size, *lo = sum + n, *hi = lo + n, *weighted = hi + n;
        std::fill(sum, sum + n, 0.0);
        std::fill(lo, lo + n, std::numeric_limits<double>::infinity());
        std::fill(hi, hi + n, -std::numeric_limits<double>::infinity());
        std::fill(weighted, weighted + n, 0.0);
        const int64_t row = (first + c) * cpu::kStatsChunk,
                      rows = std::min(cpu::kStatsChunk, m.rows - row);
        kernel(block, row, rows, 0, n, sum, lo, hi);
        if (in.weighing.wanted()) cpu::weighted_sums(block, row, rows, n, in.weighing, weighted);
      }
    });
    for (int64_t c = 0; c < count; ++c) {
      const double *sum = work.data() + c * size, *lo = sum + n, *hi = lo + n, *weighted = hi + n;
      bool finite = true;
      for (int64_t j = 0; j < n; ++j) {
        finite = finite && std::isfinite(sum[j]);
        out[n + j] += sum[j];
        out[2 * n + j] = std::min(out[2 * n + j], lo[j]) + 0.0;  // one zero, whatever its sign
        out[3 * n + j] = std::max(out[3 * n + j], hi[j]) + 0.0;
        out[4 * n + j] += weighted[j];
      }
      const int64_t row = (first + c) * cpu::kStatsChunk;
      const int64_t bad =
          finite ? -1 : first_not_finite(m, row, std::min(row + cpu::kStatsChunk, m.rows));
      if (bad >= 0) return bad;
    }
  }
  for (int64_t j = 0; j < n; ++j) out[j] += static_cast<double>(m.rows);
  return -1;
}

Tensor column_stats(const Tensor& x, const std::optional<Tensor>& weight,
                    const std::optional<Tensor>& centre, Tensor state) {
  const ColumnStatsArguments in = read_column_stats("_column_stats", x, weight, centre, state);
  Tensor found = torch::stable::new_empty(state, {}, ScalarType::Long);
  *found.mutable_data_ptr<int64_t>() = add_rows(in);
  return found;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_column_stats", TORCH_BOX(&torchext::ops::column_stats));
}
