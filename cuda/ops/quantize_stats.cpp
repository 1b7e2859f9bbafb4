// Scales that cover the values, the variance rounding will add, and errors of given levels, on
// CUDA.
#include <tuple>

#include "kernels/channel_ranges.h"
#include "kernels/rounding_variance.h"
#include "level_errors.h"

namespace torchext::ops {
namespace {

using OptTensor = std::optional<Tensor>;
using OptInt = std::optional<int64_t>;

Tensor quantization_scale(const Tensor& x, int64_t bits, std::string scheme_name, OptInt dim,
                          OptInt bucket_size) {
  constexpr const char* op = "quantization_scale";
  const Device device(x);
  const Tensor in = dense_floats(op, "x", x);
  const Scheme scheme = parse_grid(op, scheme_name);
  const int width = check_bits(op, scheme, bits);
  const Channels channels = channels_of(op, sizes_of(x), dim, bucket_size);
  const bool affine = scheme == Scheme::affine;
  Tensor out = affine ? torch::stable::new_empty(x, {channels.count, 2}, ScalarType::Float)
                      : torch::stable::new_empty(x, {channels.count}, ScalarType::Float);
  Tensor work = torch::stable::new_empty(x, {channels.count, cuda::kRangeWords}, ScalarType::Long);
  const cuda::ChannelRangesParams p{in.const_data_ptr(),
                                    float_type(in),
                                    in.numel(),
                                    {channels.count, channels.inner},
                                    work.mutable_data_ptr<int64_t>(),
                                    out.mutable_data_ptr<float>(),
                                    width,
                                    affine};
  check_launch(op, cuda::launch_channel_scales(p, device.stream()));
  return out;
}

Tensor quantization_variance(const Tensor& x, const OptTensor& scale, const OptTensor& levels,
                             int64_t bits, std::string scheme, OptInt dim, OptInt bucket_size) {
  constexpr const char* op = "quantization_variance";
  const Device device(x);
  const Tensor in = dense_floats(op, "x", x);
  const FormatArguments format(op, sizes_of(x), scale, levels, bits, scheme, dim, bucket_size);
  Tensor work = torch::stable::new_empty(x, {cuda::tree_work(in.numel())}, ScalarType::Double);
  Tensor out = torch::stable::new_empty(x, std::vector<int64_t>{}, ScalarType::Double);
  const cuda::RoundingVarianceParams p{
      device_format(op, device, format), in.const_data_ptr(),           float_type(in), in.numel(),
      work.mutable_data_ptr<double>(),   out.mutable_data_ptr<double>()};
  check_launch(op, cuda::launch_rounding_variance(p, device.stream()));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> rounding_error(const Tensor& x, const Tensor& levels,
                                                  const OptTensor& weight, OptInt dim,
                                                  OptInt bucket_size, std::string rounding) {
  constexpr const char* op = "rounding_error";
  const Device device(x);
  const Tensor in = dense_floats(op, "x", x);
  const Tables tables(op, sizes_of(x), dim, bucket_size);
  const Tensor table = torch::stable::to(dense_floats(op, "levels", levels), ScalarType::Double);
  device.check(op, "levels", table);
  const int64_t width = check_level_tables(op, levels, tables.count);
  const OptTensor dense = dense_weight(op, weight, x);
  if (dense) device.check(op, "weight", *dense);
  const bool stochastic = parse_rounding(op, rounding);
  const LevelErrors found(op, device, in, dense ? dense->const_data_ptr<double>() : nullptr, tables,
                          tables.shape(dim || bucket_size), table, width, levels.dim() == 1,
                          stochastic);
  return {found.variance, found.bias2, found.clipped};
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("quantization_scale", TORCH_BOX(&torchext::ops::quantization_scale));
  m.impl("quantization_variance", TORCH_BOX(&torchext::ops::quantization_variance));
  m.impl("rounding_error", TORCH_BOX(&torchext::ops::rounding_error));
}
