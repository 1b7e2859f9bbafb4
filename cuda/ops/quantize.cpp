// Rounding to codes, back to values, the round trip in one pass, and packing, on CUDA.
#include "device_format.h"
#include "kernels/bit_stream.h"
#include "kernels/quantizer.h"

namespace torchext::ops {
namespace {

using OptTensor = std::optional<Tensor>;
using OptInt = std::optional<int64_t>;

cuda::QuantizerParams rounding_params(const char* op, const Device& device,
                                      const FormatArguments& format, const Tensor& x,
                                      const std::string& rounding, const OptTensor& key,
                                      int64_t stream) {
  cuda::QuantizerParams p{};
  p.format = device_format(op, device, format);
  p.x = x.const_data_ptr();
  p.x_type = float_type(x);
  p.n = x.numel();
  p.stochastic = check_rounding(op, rounding, key);
  p.stream = to_stream(op, stream);
  if (p.stochastic) p.key = device_key(op, device, *key);
  return p;
}

Tensor quantize(const Tensor& x, const OptTensor& scale, const OptTensor& levels, int64_t bits,
                std::string scheme, OptInt dim, OptInt bucket_size, std::string rounding,
                const OptTensor& key, int64_t stream) {
  constexpr const char* op = "quantize";
  const Device device(x);
  const Tensor in = dense_floats(op, "x", x);
  const FormatArguments format(op, sizes_of(x), scale, levels, bits, scheme, dim, bucket_size);
  cuda::QuantizerParams p = rounding_params(op, device, format, in, rounding, key, stream);
  Tensor codes = torch::stable::new_empty(x, {packed_bytes(p.n, format.bits)}, ScalarType::Byte);
  p.codes = codes.mutable_data_ptr<uint8_t>();
  check_launch(op, cuda::launch_quantize(p, device.stream()));
  return codes;
}

Tensor fake_quantize(const Tensor& x, const OptTensor& scale, const OptTensor& levels, int64_t bits,
                     std::string scheme, OptInt dim, OptInt bucket_size, std::string rounding,
                     const OptTensor& key, int64_t stream) {
  constexpr const char* op = "fake_quantize";
  const Device device(x);
  const Tensor in = dense_floats(op, "x", x);
  const FormatArguments format(op, sizes_of(x), scale, levels, bits, scheme, dim, bucket_size);
  cuda::QuantizerParams p = rounding_params(op, device, format, in, rounding, key, stream);
  Tensor out = torch::stable::new_empty(x, sizes_of(x));
  p.y = out.mutable_data_ptr();
  check_launch(op, cuda::launch_fake_quantize(p, device.stream()));
  return out;
}

Tensor dequantize(const Tensor& codes, const OptTensor& scale, const OptTensor& levels,
                  std::vector<int64_t> size, int64_t bits, std::string scheme, OptInt dim,
                  OptInt bucket_size) {
  constexpr const char* op = "dequantize";
  check_dtype(op, "codes", codes, ScalarType::Byte);
  const Device device(codes, "codes");
  const FormatArguments format(op, size, scale, levels, bits, scheme, dim, bucket_size);
  cuda::QuantizerParams p{};
  p.format = device_format(op, device, format);
  p.n = check_size(op, size);
  check_shape(op, "codes", codes, {packed_bytes(p.n, format.bits)});
  const Tensor in = torch::stable::contiguous(codes);
  Tensor out = torch::stable::new_empty(codes, size, ScalarType::Float);
  p.codes = const_cast<uint8_t*>(in.const_data_ptr<uint8_t>());  // the kernel only reads it
  p.y = out.mutable_data_ptr();
  check_launch(op, cuda::launch_dequantize(p, device.stream()));
  return out;
}

Tensor pack_bits(const Tensor& codes, int64_t bits) {
  constexpr const char* op = "pack_bits";
  const int width = check_pack(op, codes, bits);
  const Device device(codes, "codes");
  const Tensor in = torch::stable::contiguous(codes);
  Tensor out = torch::stable::new_empty(codes, {packed_bytes(in.numel(), width)}, ScalarType::Byte);
  const cuda::BitStreamParams p{const_cast<uint8_t*>(in.const_data_ptr<uint8_t>()),
                                out.mutable_data_ptr<uint8_t>(), in.numel(), width};
  check_launch(op, cuda::launch_pack(p, device.stream()));
  return out;
}

Tensor unpack_bits(const Tensor& packed, int64_t n, int64_t bits) {
  constexpr const char* op = "unpack_bits";
  const int width = check_unpack(op, packed, n, bits);
  const Device device(packed, "packed");
  const Tensor in = torch::stable::contiguous(packed);
  Tensor out = torch::stable::new_empty(packed, {n}, ScalarType::Byte);
  const cuda::BitStreamParams p{out.mutable_data_ptr<uint8_t>(),
                                const_cast<uint8_t*>(in.const_data_ptr<uint8_t>()), n, width};
  check_launch(op, cuda::launch_unpack(p, device.stream()));
  return out;
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("quantize", TORCH_BOX(&torchext::ops::quantize));
  m.impl("fake_quantize", TORCH_BOX(&torchext::ops::fake_quantize));
  m.impl("dequantize", TORCH_BOX(&torchext::ops::dequantize));
  m.impl("pack_bits", TORCH_BOX(&torchext::ops::pack_bits));
  m.impl("unpack_bits", TORCH_BOX(&torchext::ops::unpack_bits));
}
