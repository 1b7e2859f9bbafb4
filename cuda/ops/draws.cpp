// k draws per value in one pass, and one of them back, on CUDA.
#include "device_format.h"
#include "kernels/draw_codes.h"
#include "ops/draw_layout.h"

namespace torchext::ops {
namespace {

using OptInt = std::optional<int64_t>;

/// The part that encoder and decoder share.
cuda::DrawCodesParams draw_params(const char* op, const Device& device,
                                  const FormatArguments& format, const DrawLayout& layout,
                                  int64_t stream) {
  cuda::DrawCodesParams p{};
  p.format = device_format(op, device, format);
  p.format.bits = layout.width();
  p.form = layout.form;
  p.draws = layout.draws;
  p.base_bits = layout.base_bits;
  p.stream = to_stream(op, stream);
  return p;
}

Tensor quantize_draws(const Tensor& x, const Tensor& levels, int64_t draws, std::string form,
                      OptInt dim, const Tensor& key, int64_t stream) {
  constexpr const char* op = "quantize_draws";
  const Device device(x);
  const Tensor in = dense_floats(op, "x", x);
  const FormatArguments format(op, sizes_of(x), std::nullopt, levels, 8, "levels", dim,
                               std::nullopt);
  const DrawLayout layout = draw_layout(op, format.level_count, draws, form);
  cuda::DrawCodesParams p = draw_params(op, device, format, layout, stream);
  p.key = device_key(op, device, key);
  p.x = in.const_data_ptr();
  p.x_type = float_type(in);
  p.n = in.numel();
  Tensor out = torch::stable::new_empty(x, {layout.bytes(p.n)}, ScalarType::Byte);
  const bool ternary = layout.form == DrawForm::ternary;
  Tensor counts = torch::stable::new_empty(x, {ternary ? p.n : 0}, ScalarType::Byte);
  p.codes = out.mutable_data_ptr<uint8_t>();
  p.ternary = p.codes + layout.interval_bytes(p.n);
  p.counts = counts.mutable_data_ptr<uint8_t>();
  check_launch(op, cuda::launch_quantize_draws(p, device.stream()));
  return out;
}

Tensor dequantize_draws(const Tensor& codes, const Tensor& levels, std::vector<int64_t> size,
                        int64_t draws, std::string form, OptInt dim, int64_t draw,
                        const std::optional<Tensor>& key, int64_t stream) {
  constexpr const char* op = "dequantize_draws";
  check_dtype(op, "codes", codes, ScalarType::Byte);
  const Device device(codes, "codes");
  const FormatArguments format(op, size, std::nullopt, levels, 8, "levels", dim, std::nullopt);
  const DrawLayout layout = draw_layout(op, format.level_count, draws, form);
  cuda::DrawCodesParams p = draw_params(op, device, format, layout, stream);
  p.n = check_drawn(op, layout, codes, size, draw, form, key);
  if (layout.dealt()) p.key = device_key(op, device, *key);
  const Tensor in = torch::stable::contiguous(codes);
  Tensor out = torch::stable::new_empty(codes, size, ScalarType::Float);
  p.codes = const_cast<uint8_t*>(in.const_data_ptr<uint8_t>());  // the kernel only reads it
  p.ternary = p.codes + layout.interval_bytes(p.n);
  p.y = out.mutable_data_ptr<float>();
  p.draw = static_cast<int>(draw);
  check_launch(op, cuda::launch_dequantize_draws(p, device.stream()));
  return out;
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("quantize_draws", TORCH_BOX(&torchext::ops::quantize_draws));
  m.impl("dequantize_draws", TORCH_BOX(&torchext::ops::dequantize_draws));
}
