// What is learned from a table's columns before it is encoded, on CUDA: statistics and histograms.
#include "code_memory.h"
#include "kernels/count_columns.h"
#include "kernels/measure_columns.h"
#include "ops/column_stats_args.h"
#include "ops/histogram_args.h"

namespace torchext::ops {
namespace {

Tensor column_stats_cuda(const Tensor& x, const std::optional<Tensor>& weight,
                         const std::optional<Tensor>& centre, Tensor state) {
  constexpr const char* op = "_column_stats";
  const Device device(x);
  check_all(device, op, {{"weight", given(weight)}, {"centre", given(centre)}, {"state", &state}});
  const ColumnStatsArguments in = read_column_stats(op, x, weight, centre, state);
  const Matrix& m = in.x;
  const int64_t chunks = (m.rows + cpu::kStatsChunk - 1) / cpu::kStatsChunk;
  Tensor parts = torch::stable::new_empty(state, {chunks, cuda::kStatsParts, m.cols});
  Tensor found = torch::stable::new_empty(state, {}, ScalarType::Long);
  check_launch(op, cuda::launch_measure_columns({m.data, m.f64, m.row_stride, m.rows, m.cols,
                                                 in.weighing, parts.mutable_data_ptr<double>(),
                                                 in.state, found.mutable_data_ptr<int64_t>()},
                                                device.stream()));
  return found;
}

void histogram_add_cuda(const Tensor& x, const Tensor& state, Tensor counts) {
  constexpr const char* op = "_histogram_add";
  const Device device(x);
  check_all(device, op, {{"state", &state}, {"counts", &counts}});
  const Matrix m = read_matrix(op, x);
  const Histograms h = read_histograms(op, state, counts, m.cols);
  const AlignedBytes maps(state);
  check_launch(op, cuda::launch_count_columns(
                       {m.data, m.f64, m.row_stride, m.rows, m.cols,
                        reinterpret_cast<const cpu::HistogramMap*>(maps.data), h.counts, h.bins},
                       device.stream()));
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("_column_stats", TORCH_BOX(&torchext::ops::column_stats_cuda));
  m.impl("_histogram_add", TORCH_BOX(&torchext::ops::histogram_add_cuda));
}
