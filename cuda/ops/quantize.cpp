// quantize on CUDA: the symmetric grid with one scale, stochastic rounding. Other formats say so.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "kernels/quantize_symmetric.h"
#include "ops/quantize_format.h"

namespace torchext::ops {
namespace {

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_device(const char* op, const char* name, const Tensor& t, int32_t device) {
  TX_CHECK(t.is_cuda() && t.get_device_index() == device, op, name,
           " must be on the device of x (cuda:", device, "), got ",
           t.is_cuda() ? "another GPU" : "another device");
}

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
  const int32_t device = x.get_device_index();
  check_device(op, "scale", *scale, device);
  check_device(op, "key", *key, device);
  check_dtype(op, "scale", *scale, ScalarType::Float);
  TX_CHECK(scale->numel() == 1, op, "scale must have one element, got ", scale->numel());
  check_key(op, *key);

  const torch::stable::accelerator::DeviceGuard guard(device);
  const Tensor in = as_float(op, "x", x);
  Tensor codes = torch::stable::new_empty(x, {packed_bytes(x.numel(), width)}, ScalarType::Byte);
  const cuda::QuantizeSymmetricParams p{in.const_data_ptr<float>(),
                                        codes.mutable_data_ptr<uint8_t>(),
                                        scale->const_data_ptr<float>(),
                                        static_cast<const uint64_t*>(key->const_data_ptr()),
                                        in.numel(),
                                        to_stream(op, stream)};
  const cudaError_t status = cuda::launch_quantize_symmetric(p, width, current_stream(device));
  TX_CHECK(status == cudaSuccess, op, "x must be on a working device, got ",
           cudaGetErrorString(status));
  return codes;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CUDA, m) {
  m.impl("quantize", TORCH_BOX(&torchext::ops::quantize_cuda));
}
