// Inner epochs of SVRG and HALP for linear models on CUDA.
#include "ops/inner_loop.h"

#include "device.h"
#include "kernels/inner_loop.h"
#include "kernels/linear/slope_change.h"

namespace torchext::ops {
namespace {

bool is_aligned(const Tensor& x) {
  return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

/// Rows whose memory starts at a multiple of 16 bytes.
Tensor aligned(const Tensor& x) {
  return is_aligned(x) || !x.is_contiguous() ? x : torch::stable::clone(x);
}

void check_devices(const char* op, const Device& device, const Tensor& phi,
                   const std::optional<Tensor>& weight, const Tensor& alpha_g, const Tensor& z,
                   const std::optional<Tensor>& z_intercept, const Tensor& key) {
  device.check(op, "phi", phi);
  if (weight.has_value()) device.check(op, "weight", *weight);
  device.check(op, "alpha_g", alpha_g);
  device.check(op, "z", z);
  if (z_intercept.has_value()) device.check(op, "z_intercept", *z_intercept);
  device.check(op, "key", key);
}

/// The memory that both epochs need beside their arguments.
struct Memory {
  Tensor cache, scratch;

  Memory(const Tensor& x, const cpu::InnerLoop& loop, int64_t scratch_bytes)
      : cache(torch::stable::new_empty(
            x, {loop.rows * cpu::slope_cache_size(loop.loss, loop.outputs)}, ScalarType::Float)),
        scratch(torch::stable::new_empty(x, {scratch_bytes}, ScalarType::Byte)) {}
};

void halp_epoch_cuda(const Tensor& x, const Tensor& phi, const std::optional<Tensor>& weight,
                     std::string loss, const Tensor& alpha_g, double alpha, double l2, double dx,
                     double dz, int64_t steps, int64_t batch, int64_t refresh, std::string noise,
                     Tensor z, std::optional<Tensor> z_intercept, Tensor clips,
                     std::optional<Tensor> gammas, const Tensor& key, int64_t stream) {
  constexpr const char* op = "_halp_epoch";
  const Device device(x);
  check_devices(op, device, phi, weight, alpha_g, z, z_intercept, key);
  device.check(op, "clips", clips);
  if (gammas.has_value()) device.check(op, "gammas", *gammas);
  const cpu::HalpFormat format = read_format(op, x, z);
  const Tensor rows = aligned(x);
  const InnerArgs args(op, rows, phi, weight, loss, alpha_g, alpha, l2, steps, batch,
                       z_intercept.has_value(), key, stream);
  TX_CHECK(batch == 1 || is_aligned(z), op,
           "z must start at a multiple of 16 bytes with batch > 1 ",
           "on CUDA, got one that does not");
  const cpu::HalpEpoch e =
      read_halp_epoch(op, args, format, dx, dz, refresh, noise, z, z_intercept, clips, gammas);
  const Memory memory(x, args.loop, cuda::halp_scratch(e));
  const cuda::HalpParams p{e, static_cast<const uint64_t*>(key.const_data_ptr()), args.phi,
                           memory.cache.mutable_data_ptr<float>(),
                           memory.scratch.mutable_data_ptr()};
  check_launch(op, cuda::launch_halp_epoch(p, device.stream()));
}

void svrg_epoch_cuda(const Tensor& x, const Tensor& phi, const std::optional<Tensor>& weight,
                     std::string loss, const Tensor& alpha_g, double alpha, double l2, double dx,
                     double unit, int64_t steps, int64_t batch, Tensor z,
                     std::optional<Tensor> z_intercept, const Tensor& key, int64_t stream) {
  constexpr const char* op = "_svrg_epoch";
  check_dtype(op, "x", x, ScalarType::Float);
  const Device device(x);
  check_devices(op, device, phi, weight, alpha_g, z, z_intercept, key);
  const Tensor rows = aligned(x);
  const InnerArgs args(op, rows, phi, weight, loss, alpha_g, alpha, l2, steps, batch,
                       z_intercept.has_value(), key, stream);
  const cpu::SvrgEpoch e = read_svrg_epoch(op, args, dx, unit, z, z_intercept);
  const Memory memory(x, args.loop, cuda::svrg_scratch(e));
  const cuda::SvrgParams p{e, static_cast<const uint64_t*>(key.const_data_ptr()), args.phi,
                           memory.cache.mutable_data_ptr<float>(),
                           memory.scratch.mutable_data_ptr()};
  check_launch(op, cuda::launch_svrg_epoch(p, device.stream()));
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("_halp_epoch", TORCH_BOX(&torchext::ops::halp_epoch_cuda));
  m.impl("_svrg_epoch", TORCH_BOX(&torchext::ops::svrg_epoch_cuda));
}
