// Levels per column: from a table at once, or from histograms that blocks of rows are added to.
#include <cstring>

#include "histogram_args.h"

namespace torchext::ops {
namespace {

using Kind = cpu::ColumnLevels;
using Maps = std::vector<cpu::HistogramMap>;

std::vector<Kind> read_kinds(const char* op, const std::string& kind) {
  if (kind == "lloyd") return {Kind::lloyd};
  if (kind == "nearest") return {Kind::nearest};
  if (kind == "stochastic") return {Kind::stochastic};
  TX_CHECK(kind == "both", op, "kind must be lloyd, nearest, stochastic or both, got ", kind);
  return {Kind::nearest, Kind::stochastic};
}

/// work(strip, scratch) for every strip of columns, on torch's threads.
template <class Work>
void for_strips(int64_t cols, const Work& work) {
  parallel_for(strips(cols), 1, [&](int64_t b, int64_t e) {
    cpu::LevelScratch scratch;
    for (int64_t k = b; k < e; ++k) {
      const int64_t col = k * cpu::kLevelColumns;
      work(cpu::ColumnStrip{col, std::min(cpu::kLevelColumns, cols - col)}, &scratch);
    }
  });
}

cpu::HistogramMap* maps_of(Maps* maps, const cpu::ColumnStrip& strip) {
  return maps->data() + strip.col / cpu::kHistogramColumns;
}

/// Levels and costs of all columns, where fill(search, strip, scratch) finds them.
template <class Fill>
std::tuple<Tensor, Tensor> search_levels(const char* op, const Tensor& bounds, int64_t cols,
                                         int64_t levels, const std::string& kind,
                                         int64_t iterations, const Fill& fill) {
  const float* ends = read_array<float>(op, "bounds", bounds, ScalarType::Float, {cols, 2});
  check_range(op, "levels", levels, 2, 256);
  check_range(op, "iterations", iterations, 0, 1 << 20);
  const std::vector<Kind> kinds = read_kinds(op, kind);
  const auto tables = static_cast<int64_t>(kinds.size());
  Tensor out = torch::stable::new_empty(bounds, {tables, cols, levels});
  Tensor costs = torch::stable::new_empty(bounds, {tables, cols, 2}, ScalarType::Double);
  static_assert(sizeof(cpu::LevelCost) == 2 * sizeof(double));
  const cpu::LevelSearch search{
      levels,
      kinds,
      static_cast<int>(iterations),
      ends,
      cols,
      out.mutable_data_ptr<float>(),
      reinterpret_cast<cpu::LevelCost*>(costs.mutable_data_ptr<double>())};
  for_strips(cols, [&](const cpu::ColumnStrip& strip, cpu::LevelScratch* scratch) {
    fill(search, strip, scratch);
  });
  return {out, costs};
}

std::tuple<Tensor, Tensor> column_levels(const Tensor& x, const std::optional<Tensor>& rows,
                                         const Tensor& mean, const Tensor& scale,
                                         const Tensor& bounds, int64_t levels, std::string kind,
                                         int64_t iterations) {
  constexpr const char* op = "_column_levels";
  const Matrix m = read_matrix(op, x);
  const double* mu = read_array<double>(op, "mean", mean, ScalarType::Double, {m.cols});
  const double* s = read_array<double>(op, "scale", scale, ScalarType::Double, {m.cols});
  cpu::Sample sample{m.data, m.f64, m.row_stride, nullptr, m.rows};
  if (rows.has_value()) {
    sample.rows = rows->numel();
    sample.index = read_rows(op, *rows, m.rows);
  }
  check_range(op, "number of sample rows", sample.rows, 1, int64_t{1} << 40);
  return search_levels(op, bounds, m.cols, levels, kind, iterations,
                       [&](const cpu::LevelSearch& search, const cpu::ColumnStrip& strip,
                           cpu::LevelScratch* scratch) {
                         cpu::column_levels(sample, strip, mu, s, search, scratch);
                       });
}

Tensor histogram_new(const Tensor& pilot, const Tensor& mean, const Tensor& scale,
                     const Tensor& bounds, int64_t levels) {
  constexpr const char* op = "_histogram_new";
  const Matrix m = read_matrix(op, pilot);
  TX_CHECK(m.rows > 0, op, "pilot must hold at least one row, got ", shape_text(pilot));
  const double* mu = read_array<double>(op, "mean", mean, ScalarType::Double, {m.cols});
  const double* s = read_array<double>(op, "scale", scale, ScalarType::Double, {m.cols});
  const float* ends = read_array<float>(op, "bounds", bounds, ScalarType::Float, {m.cols, 2});
  check_range(op, "levels", levels, 2, 256);
  const int64_t bins = cpu::histogram_bins(levels);
  Maps maps(static_cast<size_t>(strips(m.cols) * cpu::kStripMaps));
  const cpu::Sample sample{m.data, m.f64, m.row_stride, nullptr, m.rows};
  for_strips(m.cols, [&](const cpu::ColumnStrip& strip, cpu::LevelScratch* scratch) {
    cpu::place_bins(sample, strip, mu, s, ends, bins, scratch, maps_of(&maps, strip));
  });
  Tensor state = torch::stable::new_empty(bounds, {strips(m.cols), kStripBytes}, ScalarType::Byte);
  std::memcpy(state.mutable_data_ptr(), maps.data(), maps.size() * sizeof(cpu::HistogramMap));
  return state;
}

/// The maps of histograms [2, cols, bins].
Maps read_maps(const char* op, const Tensor& state, const Tensor& counts, int64_t cols) {
  const Histograms h = read_histograms(op, state, counts, cols);
  Maps maps(static_cast<size_t>(strips(cols) * cpu::kStripMaps));
  std::memcpy(maps.data(), h.maps, maps.size() * sizeof(cpu::HistogramMap));
  TX_CHECK(maps.empty() || maps[0].bins == h.bins, op, "counts must have ", maps[0].bins,
           " bins a column as state does, got ", h.bins);
  return maps;
}

void histogram_add(const Tensor& x, const Tensor& state, Tensor counts) {
  constexpr const char* op = "_histogram_add";
  const Matrix m = read_matrix(op, x);
  Maps maps = read_maps(op, state, counts, m.cols);
  const int64_t bins = counts.size(2);
  auto* const count = counts.mutable_data_ptr<int64_t>();
  const cpu::Sample sample{m.data, m.f64, m.row_stride, nullptr, m.rows};
  for_strips(m.cols, [&](const cpu::ColumnStrip& strip, cpu::LevelScratch* scratch) {
    int64_t* const here = count + strip.col * bins;
    cpu::count_rows(sample, strip, maps_of(&maps, strip), scratch, here, here + m.cols * bins);
  });
}

std::tuple<Tensor, Tensor> histogram_levels(const Tensor& state, const Tensor& counts,
                                            const Tensor& bounds, int64_t levels, std::string kind,
                                            int64_t iterations) {
  constexpr const char* op = "_histogram_levels";
  const int64_t cols = bounds.size(0);
  Maps maps = read_maps(op, state, counts, cols);
  const int64_t bins = counts.size(2);
  const int64_t* count = counts.const_data_ptr<int64_t>();
  return search_levels(op, bounds, cols, levels, kind, iterations,
                       [&](const cpu::LevelSearch& search, const cpu::ColumnStrip& strip,
                           cpu::LevelScratch* scratch) {
                         const int64_t* here = count + strip.col * bins;
                         cpu::histogram_levels(strip, maps_of(&maps, strip), here,
                                               here + cols * bins, search, scratch);
                       });
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_column_levels", TORCH_BOX(&torchext::ops::column_levels));
  m.impl("_histogram_add", TORCH_BOX(&torchext::ops::histogram_add));
  m.impl("_histogram_levels", TORCH_BOX(&torchext::ops::histogram_levels));
  m.impl("_histogram_new", TORCH_BOX(&torchext::ops::histogram_new));
}
