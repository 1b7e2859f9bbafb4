// Inner epochs of SVRG and HALP for linear models.
#include "inner_loop.h"

#include <cstring>

#include "kernels/linear/slope_change.h"

namespace torchext::ops {
namespace {

/// The arguments of a loop in CPU memory, its key read and its cache filled.
struct Inner : InnerArgs {
  std::vector<float> cache;

  template <class... Args>
  Inner(const char* op, const Tensor& key, const Args&... args) : InnerArgs(op, args...) {
    for (int64_t i = 0; i < loop.outputs * (cols + 1); ++i)
      TX_CHECK(std::isfinite(alpha_g[i]), op, "alpha_g must be finite, got ", alpha_g[i]);
    loop.key = read_key(op, key);
    const int64_t size = cpu::slope_cache_size(loop.loss, loop.outputs);
    cache.resize(static_cast<size_t>(size * loop.rows));
    loop.cache = cache.data();
    parallel_for(size > 0 ? loop.rows : 0, 1024, [&](int64_t b, int64_t e) {
      for (int64_t k = b; k < e; ++k)
        cpu::slope_cache(loop.loss, loop.outputs, phi + k, loop.rows, cache.data() + k * size);
    });
  }
};

void set_zero(const Tensor& t) {
  std::memset(t.mutable_data_ptr(), 0, static_cast<size_t>(t.numel()) * t.element_size());
}

void halp_epoch(const Tensor& x, const Tensor& phi, const std::optional<Tensor>& weight,
                std::string loss, const Tensor& alpha_g, double alpha, double l2, double dx,
                double dz, int64_t steps, int64_t batch, int64_t refresh, std::string noise,
                Tensor z, std::optional<Tensor> z_intercept, Tensor clips,
                std::optional<Tensor> gammas, const Tensor& key, int64_t stream) {
  constexpr const char* op = "_halp_epoch";
  const cpu::HalpFormat format = read_format(op, x, z);
  const Inner inner(op, key, x, phi, weight, loss, alpha_g, alpha, l2, steps, batch,
                    z_intercept.has_value(), key, stream);
  const cpu::HalpEpoch e =
      read_halp_epoch(op, inner, format, dx, dz, refresh, noise, z, z_intercept, clips, gammas);
  set_zero(z);
  if (z_intercept.has_value()) set_zero(*z_intercept);
  cpu::halp_epoch(e);
}

void svrg_epoch(const Tensor& x, const Tensor& phi, const std::optional<Tensor>& weight,
                std::string loss, const Tensor& alpha_g, double alpha, double l2, double dx,
                double unit, int64_t steps, int64_t batch, Tensor z,
                std::optional<Tensor> z_intercept, const Tensor& key, int64_t stream) {
  constexpr const char* op = "_svrg_epoch";
  check_dtype(op, "x", x, ScalarType::Float);
  const Inner inner(op, key, x, phi, weight, loss, alpha_g, alpha, l2, steps, batch,
                    z_intercept.has_value(), key, stream);
  const cpu::SvrgEpoch e = read_svrg_epoch(op, inner, dx, unit, z, z_intercept);
  set_zero(z);
  if (z_intercept.has_value()) set_zero(*z_intercept);
  cpu::svrg_epoch(e);
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_halp_epoch", TORCH_BOX(&torchext::ops::halp_epoch));
  m.impl("_svrg_epoch", TORCH_BOX(&torchext::ops::svrg_epoch));
}
