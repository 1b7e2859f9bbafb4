// The pass that turns the values of a table into codes, and rows as it scales them.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "encode_args.h"
#include "matrix.h"
#include "scaled_rows.h"

namespace torchext::ops {
namespace {

constexpr int64_t kRound = 16;  // chunks whose sums are held at a time; they are added up in order

void scale_rows(const Tensor& x, const std::optional<Tensor>& rows, const Tensor& mean,
                const Tensor& scale, Tensor out) {
  constexpr const char* op = "_scale_rows";
  const Matrix m = read_matrix(op, x);
  const cpu::ScaleRows p = read_scale_rows(op, m, rows, mean, scale, out);
  if (rows.has_value()) read_rows(op, *rows, m.rows);
  parallel_for(out.size(0), 64, [&](int64_t b, int64_t e) { cpu::scale_rows_ref(p, b, e); });
}

void encode(const Tensor& x, const Tensor& mean, const Tensor& scale, const Tensor& grid,
            const Tensor& levels, std::string mode, int64_t bits, const Tensor& key, int64_t row0,
            const std::optional<Tensor>& position, int64_t copy, Tensor codes,
            const std::optional<Tensor>& y, const std::optional<Tensor>& weight,
            const std::optional<Tensor>& x0, const std::optional<Tensor>& intercept,
            std::string loss, const std::optional<Tensor>& bounds, Tensor sums, Tensor totals,
            Tensor clipped) {
  constexpr const char* op = "_encode";
  EncodeArguments in =
      read_encode(op, x, mean, scale, grid, levels, mode, bits, row0, position, copy, codes, y,
                  weight, x0, intercept, loss, bounds, sums, totals, clipped);
  const Matrix& m = in.x;
  cpu::EncodeOptions& o = in.options;
  o.key = read_key(op, key);
  if (position.has_value()) read_rows(op, *position, int64_t{1} << 56);
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
        cpu::encode_chunk(setup, in.rows, first + c, scratch.data(), work.data() + c * size,
                          clip.data() + c * m.cols);
      }
    });
    for (int64_t c = 0; c < count; ++c) {
      const double* sum = work.data() + c * size;
      for (int64_t i = 0; i < column_sums; ++i) in.sums[i] += sum[i];
      for (int64_t i = 0; i < 4 * (o.outputs + 1); ++i) in.totals[i] += sum[column_sums + i];
      for (int64_t j = 0; j < m.cols; ++j)
        in.clipped[j] += clip[static_cast<size_t>(c * m.cols + j)];
    }
  }
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_encode", TORCH_BOX(&torchext::ops::encode));
  m.impl("_scale_rows", TORCH_BOX(&torchext::ops::scale_rows));
}
