// The two passes that turn a table into a store, their level statistics, and packing of codes.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/column_stats.h"
#include "kernels/encode_plan.h"
#include "kernels/layout.h"
#include "matrix.h"
#include "scaled_rows.h"

namespace torchext::ops {
namespace {

constexpr int64_t kRound = 16;  // chunks whose sums are held at a time; they are added up in order

int64_t column_stats(const Tensor& x, Tensor state) {
  constexpr const char* op = "_column_stats";
  const Matrix m = read_matrix(op, x);
  double* out = write_array<double>(op, "state", state, ScalarType::Double, {6, m.cols});
  const cpu::ColumnBlock block{m.data, m.f64, m.row_stride};
  auto* const kernel = cpu::column_stats_kernel();
  const int64_t n = m.cols, chunks = (m.rows + cpu::kStatsChunk - 1) / cpu::kStatsChunk;
  std::vector<double> work(static_cast<size_t>(std::min(chunks, kRound) * 3 * n));
  for (int64_t first = 0; first < chunks; first += kRound) {
    const int64_t count = std::min(kRound, chunks - first);
    parallel_for(count, 1, [&](int64_t b, int64_t e) {
      for (int64_t c = b; c < e; ++c) {
        double *sum = work.data() + c * 3 * n, *lo = sum + n, *hi = lo + n;
        std::fill(sum, sum + n, 0.0);
        std::fill(lo, lo + n, std::numeric_limits<double>::infinity());
        std::fill(hi, hi + n, -std::numeric_limits<double>::infinity());
        const int64_t row = (first + c) * cpu::kStatsChunk;
        kernel(block, row, std::min(cpu::kStatsChunk, m.rows - row), 0, n, sum, lo, hi);
      }
    });
    for (int64_t c = 0; c < count; ++c) {
      const double *sum = work.data() + c * 3 * n, *lo = sum + n, *hi = lo + n;
      bool finite = true;
      for (int64_t j = 0; j < n; ++j) {
        finite = finite && std::isfinite(sum[j]);
        out[n + j] += sum[j];
        out[2 * n + j] = std::min(out[2 * n + j], lo[j]) + 0.0;  // one zero, whatever its sign
        out[3 * n + j] = std::max(out[3 * n + j], hi[j]) + 0.0;
      }
      const int64_t row = (first + c) * cpu::kStatsChunk,
                    end = std::min(row + cpu::kStatsChunk, m.rows);
      for (int64_t r = row; !finite && r < end; ++r) {
        for (int64_t j = 0; j < n; ++j) {
          const int64_t at = r * m.row_stride + j;
          const double v = m.f64 ? static_cast<const double*>(m.data)[at]
                                 : static_cast<const float*>(m.data)[at];
          if (!std::isfinite(v)) return r * n + j;
        }
      }
    }
  }
  for (int64_t j = 0; j < n; ++j) out[j] += static_cast<double>(m.rows);
  return -1;
}

void scale_rows(const Tensor& x, const std::optional<Tensor>& rows, const Tensor& mean,
                const Tensor& scale, Tensor out) {
  constexpr const char* op = "_scale_rows";
  const Matrix m = read_matrix(op, x);
  const cpu::ScaleRows p = read_scale_rows(op, m, rows, mean, scale, out);
  if (rows.has_value()) read_rows(op, *rows, m.rows);
  parallel_for(out.size(0), 64, [&](int64_t b, int64_t e) { cpu::scale_rows_ref(p, b, e); });
}

cpu::EncodeMode read_mode(const char* op, const std::string& mode) {
  if (mode == "nearest") return cpu::EncodeMode::nearest;
  if (mode == "stochastic") return cpu::EncodeMode::stochastic;
  TX_CHECK(mode == "double", op, "mode must be nearest, stochastic or double, got ", mode);
  return cpu::EncodeMode::twice;
}

void encode(const Tensor& x, const Tensor& mean, const Tensor& scale, const Tensor& grid,
            const Tensor& levels, std::string mode, int64_t bits, const Tensor& key, int64_t row0,
            const std::optional<Tensor>& position, int64_t copy, Tensor codes,
            const std::optional<Tensor>& y, const std::optional<Tensor>& weight,
            const std::optional<Tensor>& x0, const std::optional<Tensor>& intercept,
            std::string loss, const std::optional<Tensor>& bounds, Tensor sums, Tensor totals,
            Tensor clipped) {
  constexpr const char* op = "_encode";
  const Matrix m = read_matrix(op, x);
  cpu::EncodeOptions o;
  o.cols = m.cols;
  TX_CHECK(valid_bits(bits), op, "bits must be 1..8 or 16, got ", bits);
  o.bits = static_cast<int>(bits);
  o.mode = read_mode(op, mode);
  TX_CHECK(o.mode != cpu::EncodeMode::twice || bits >= 2, op,
           "bits must be at least 2 in mode double, got ", bits);
  o.key = read_key(op, key);
  o.copy = static_cast<uint32_t>(check_range(op, "copy", copy, 0, 0xFFFFFFFFll));
  check_range(op, "row0", row0, 0, int64_t{1} << 56);
  TX_CHECK(row0 % cpu::kEncodeTile == 0, op, "row0 must be a multiple of 64, got ", row0);
  o.mean = read_array<double>(op, "mean", mean, ScalarType::Double, {m.cols});
  o.scale = read_array<double>(op, "scale", scale, ScalarType::Double, {m.cols});
  o.grid = read_array<float>(op, "grid", grid, ScalarType::Float, {m.cols, 2});
  o.count = cpu::encode_level_count(o.mode, o.bits);
  if (levels.numel() > 0) {
    TX_CHECK(bits <= 8, op, "levels must be empty (affine) for more than 8 bits, got ",
             shape_text(levels));
    o.levels = read_array<float>(op, "levels", levels, ScalarType::Float, {m.cols, o.count});
  }
  if (bounds.has_value())
    o.bounds = read_array<float>(op, "bounds", *bounds, ScalarType::Float, {m.cols, 2});
  cpu::EncodeRows rows{m.data,  m.f64,   m.row_stride, row0,   m.rows,
                       nullptr, nullptr, nullptr,      nullptr};
  if (position.has_value()) {
    check_shape(op, "rows", *position, {m.rows});
    rows.position = read_rows(op, *position, int64_t{1} << 56);
  }
  if (y.has_value()) {
    TX_CHECK(y->dim() == 2, op, "y must have shape (rows, outputs), got ", shape_text(*y));
    o.outputs = y->size(1);
    rows.y = read_array<float>(op, "y", *y, ScalarType::Float, {m.rows, o.outputs});
  }
  if (weight.has_value())
    rows.weight = read_array<float>(op, "weight", *weight, ScalarType::Float, {m.rows});
  if (x0.has_value()) {
    TX_CHECK(y.has_value(), op, "x0 must come with y, got no y");
    o.x0 = read_array<float>(op, "x0", *x0, ScalarType::Float, {o.outputs, m.cols});
    if (intercept.has_value()) {
      o.intercept = read_array<float>(op, "intercept", *intercept, ScalarType::Float, {o.outputs});
    }
  }
  TX_CHECK(loss == "squared_error" || loss == "log_loss", op,
           "loss must be squared_error or log_loss, got ", loss);
  o.loss = loss == "log_loss" ? cpu::AnchorLoss::log_loss : cpu::AnchorLoss::squared_error;
  rows.codes = write_array<uint8_t>(op, "codes", codes, ScalarType::Byte,
                                    {layout_bytes({Layout::tile4, o.bits, m.rows, m.cols})});
  double* out = write_array<double>(op, "sums", sums, ScalarType::Double,
                                    {cpu::kMoments + cpu::kOutputSums * o.outputs, m.cols});
  double* total = write_array<double>(op, "totals", totals, ScalarType::Double, {4, o.outputs + 1});
  auto* clips = write_array<int64_t>(op, "clipped", clipped, ScalarType::Long, {m.cols});
  if (m.rows == 0 || m.cols == 0) return;

  cpu::EncodeSetup setup;
  cpu::encode_setup(o, &setup);
  const int64_t chunks = (m.rows + cpu::kEncodeChunk - 1) / cpu::kEncodeChunk;
  const int64_t size = cpu::encode_sums_size(setup.plan), column_sums = size - 4 * (o.outputs + 1);
  const int64_t scratch_size = cpu::encode_scratch_size(setup.plan),
                round = std::min(chunks, kRound);
  std::vector<double> work(static_cast<size_t>(round * size));
  std::vector<int64_t> clip(static_cast<size_t>(round * m.cols));
  for (int64_t first = 0; first < chunks; first += kRound) {
    const int64_t count = std::min(kRound, chunks - first);
    std::fill(clip.begin(), clip.end(), 0);
    parallel_for(count, 1, [&](int64_t b, int64_t e) {
      std::vector<double> scratch(static_cast<size_t>(scratch_size));
      for (int64_t c = b; c < e; ++c) {
        cpu::encode_chunk(setup, rows, first + c, scratch.data(), work.data() + c * size,
                          clip.data() + c * m.cols);
      }
    });
    for (int64_t c = 0; c < count; ++c) {
      const double* sum = work.data() + c * size;
      for (int64_t i = 0; i < column_sums; ++i) out[i] += sum[i];
      for (int64_t i = 0; i < 4 * (o.outputs + 1); ++i) total[i] += sum[column_sums + i];
      for (int64_t j = 0; j < m.cols; ++j) clips[j] += clip[static_cast<size_t>(c * m.cols + j)];
    }
  }
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_column_stats", TORCH_BOX(&torchext::ops::column_stats));
  m.impl("_encode", TORCH_BOX(&torchext::ops::encode));
  m.impl("_scale_rows", TORCH_BOX(&torchext::ops::scale_rows));
}
