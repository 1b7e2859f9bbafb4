// A table's values to the codes of a store, on CUDA.
#include "code_memory.h"
#include "device_format.h"
#include "kernels/encode_columns.h"
#include "ops/encode_args.h"

namespace torchext::ops {
namespace {

void encode(const Tensor& x, const Tensor& mean, const Tensor& scale, const Tensor& grid,
            const Tensor& levels, std::string mode, int64_t bits, const Tensor& key, int64_t row0,
            const std::optional<Tensor>& position, int64_t copy, Tensor codes,
            const std::optional<Tensor>& y, const std::optional<Tensor>& weight,
            const std::optional<Tensor>& x0, const std::optional<Tensor>& intercept,
            std::string loss, const std::optional<Tensor>& bounds, Tensor sums, Tensor totals,
            Tensor clipped) {
  constexpr const char* op = "_encode";
  const Device device(x);
  check_all(device, op,
            {{"mean", &mean},
             {"scale", &scale},
             {"grid", &grid},
             {"levels", &levels},
             {"rows", given(position)},
             {"codes", &codes},
             {"y", given(y)},
             {"weight", given(weight)},
             {"bounds", given(bounds)},
             {"x0", given(x0)},
             {"intercept", given(intercept)},
             {"sums", &sums},
             {"totals", &totals},
             {"clipped", &clipped}});
  const EncodeArguments in =
      read_encode(op, x, mean, scale, grid, levels, mode, bits, row0, position, copy, codes, y,
                  weight, x0, intercept, loss, bounds, sums, totals, clipped);
  const cpu::EncodeOptions& o = in.options;
  cuda::EncodeParams p{};
  p.x = in.rows.x;
  p.f64 = in.rows.f64;
  p.row_stride = in.rows.row_stride;
  p.row0 = row0;
  p.rows = in.rows.rows;
  p.cols = o.cols;
  p.position = in.rows.position;
  p.y = in.rows.y;
  p.weight = in.rows.weight;
  p.outputs = o.outputs;
  p.bits = o.bits;
  p.planes = planes_of(o.bits);
  p.mode = o.mode;
  p.key = device_key(op, device, key);
  p.copy = o.copy;
  p.mean = o.mean;
  p.scale = o.scale;
  p.grid = o.grid;
  p.levels = o.levels;
  p.count = o.count;
  p.bounds = o.bounds;
  p.x0 = o.x0;
  p.intercept = o.intercept;
  p.loss = o.loss;
  p.codes = in.rows.codes;
  p.sums = in.sums;
  p.totals = in.totals;
  p.clipped = in.clipped;
  const int64_t chunks = (p.rows + cpu::kEncodeChunk - 1) / cpu::kEncodeChunk;
  Tensor chunk_sums = torch::stable::new_empty(
      x, {chunks, cpu::kMoments + cpu::kOutputSums * p.outputs, p.cols}, ScalarType::Double);
  Tensor chunk_totals =
      torch::stable::new_empty(x, {chunks, cuda::encode_totals(p)}, ScalarType::Double);
  Tensor slopes = torch::stable::new_empty(
      x, {p.x0 != nullptr ? p.outputs * cuda::kSlopes : 0, p.rows}, ScalarType::Double);
  p.slopes = slopes.mutable_data_ptr<double>();
  p.chunk_sums = chunk_sums.mutable_data_ptr<double>();
  p.chunk_totals = chunk_totals.mutable_data_ptr<double>();
  check_launch(op, cuda::launch_encode(p, device.stream()));
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) { m.impl("_encode", TORCH_BOX(&torchext::ops::encode)); }
