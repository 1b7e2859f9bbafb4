// quantize on CUDA: the symmetric grid with one scale, stochastic rounding. Other formats say so.
#include "device.h"
#include "kernels/quantize_symmetric.h"
#include "ops/quantize_format.h"

namespace torchext::ops {
namespace {

Tensor quantize_cuda(const Tensor& x, const std::optional<Tensor>& scale,
                     const std::optional<Tensor>& levels, int64_t bits, std::string scheme,
                     std::optional<int64_t> dim, std::optional<int64_t> bucket_size,
                     std::string rounding, const std::optional<Tensor>& key, int64_t stream) {
  constexpr const char* op = "quantize";
  TX_CHECK(parse_scheme(op, scheme) == Scheme::symmetric && !levels && !dim && !bucket_size, op,
           "scheme must be symmetric with one scale on CUDA, got ", scheme,
           dim || bucket_size ? " with several" : "");
  TX_CHECK(parse_rounding(op, rounding), op, "rounding must be stochastic on CUDA, got ", rounding);
  const int width = check_bits(op, Scheme::symmetric, bits);
  TX_CHECK(scale, op, "scale must be a tensor under scheme symmetric, got None");
  TX_CHECK(key, op, "key must be a key under stochastic rounding, got None");
  const Device device(x);
  device.check(op, "scale", *scale);
  device.check(op, "key", *key);
  check_dtype(op, "scale", *scale, ScalarType::Float);
  TX_CHECK(scale->numel() == 1, op, "scale must have one element, got ", scale->numel());
  check_key(op, *key);

  const Tensor in = as_float(op, "x", x);
  Tensor codes = torch::stable::new_empty(x, {packed_bytes(x.numel(), width)}, ScalarType::Byte);
  const cuda::QuantizeSymmetricParams p{in.const_data_ptr<float>(),
                                        codes.mutable_data_ptr<uint8_t>(),
                                        scale->const_data_ptr<float>(),
                                        static_cast<const uint64_t*>(key->const_data_ptr()),
                                        in.numel(),
                                        to_stream(op, stream)};
  check_launch(op, cuda::launch_quantize_symmetric(p, width, device.stream()));
  return codes;
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) { m.impl("quantize", TORCH_BOX(&torchext::ops::quantize_cuda)); }
