// Inner epochs of SVRG and HALP for linear models.
#include "kernels/linear/inner_loop.h"

#include <cmath>
#include <cstring>

#include "kernels/linear/slope_change.h"
#include "matrix.h"
#include "row_loss.h"

namespace torchext::ops {
namespace {

constexpr int64_t kMostCols = int64_t{1} << 20;  // 32-bit lanes hold the products of one row

/// What both ops take, and the memory behind it.
struct Inner {
  cpu::InnerLoop loop{};
  int64_t cols = 0;
  const double* alpha_g = nullptr;
  std::vector<float> cache;

  Inner(const char* op, const Tensor& x, const Tensor& phi, const std::optional<Tensor>& weight,
        const std::string& loss, const Tensor& alpha_g_in, double alpha, double l2, int64_t steps,
        bool intercept, const Tensor& key, int64_t stream) {
    TX_CHECK(x.dim() == 2 && x.size(0) >= 1 && x.size(1) >= 64 && x.size(1) % 64 == 0, op,
             "x must have shape (rows >= 1, a multiple of 64), got ", shape_text(x));
    check_contiguous(op, "x", x);
    loop.x = x.const_data_ptr();
    loop.rows = check_range(op, "rows", x.size(0), 1, 0xFFFFFFFFll);
    loop.pitch = check_range(op, "columns", x.size(1), 64, kMostCols);
    TX_CHECK(phi.dim() == 2 && phi.size(0) >= 1, op, "phi must have shape (outputs, ", loop.rows,
             "), got ", shape_text(phi));
    loop.outputs = static_cast<int>(check_range(op, "outputs", phi.size(0), 1, 65536));
    loop.loss = read_loss(op, loss);
    TX_CHECK(loop.loss != cpu::RowLoss::logistic || loop.outputs == 1, op,
             "phi must have one row with the logistic loss, got ", loop.outputs);
    const float* scores =
        read_array<float>(op, "phi", phi, ScalarType::Float, {loop.outputs, loop.rows});
    if (weight.has_value())
      loop.weight = read_array<float>(op, "weight", *weight, ScalarType::Float, {loop.rows});
    check_dtype(op, "alpha_g", alpha_g_in, ScalarType::Double);
    TX_CHECK(alpha_g_in.dim() == 2 && alpha_g_in.size(1) >= 1, op,
             "alpha_g must have shape (outputs, columns + 1), got ", shape_text(alpha_g_in));
    cols = check_range(op, "columns", alpha_g_in.size(1) - 1, 0, loop.pitch);
    alpha_g =
        read_array<double>(op, "alpha_g", alpha_g_in, ScalarType::Double, {loop.outputs, cols + 1});
    for (int64_t i = 0; i < loop.outputs * (cols + 1); ++i)
      TX_CHECK(std::isfinite(alpha_g[i]), op, "alpha_g must be finite, got ", alpha_g[i]);
    positive(op, "alpha", alpha);
    TX_CHECK(l2 >= 0 && std::isfinite(l2), op, "l2 must be >= 0, got ", l2);
    loop.alpha = alpha;
    loop.l2 = l2;
    loop.steps = check_range(op, "steps", steps, 0, int64_t{1} << 48);
    loop.intercept = intercept;
    loop.key = read_key(op, key);
    loop.stream = to_stream(op, stream);
    const int64_t size = cpu::slope_cache_size(loop.loss, loop.outputs);
    cache.resize(static_cast<size_t>(size * loop.rows));
    loop.cache = cache.data();
    parallel_for(size > 0 ? loop.rows : 0, 1024, [&](int64_t b, int64_t e) {
      for (int64_t k = b; k < e; ++k)
        cpu::slope_cache(loop.loss, loop.outputs, scores + k, loop.rows, cache.data() + k * size);
    });
  }

  static void positive(const char* op, const char* name, double value) {
    TX_CHECK(value > 0 && std::isfinite(value), op, name, " must be positive, got ", value);
  }
};

/// An array of zeros to be written.
template <class T>
T* zeroed(const char* op, const char* name, const Tensor& t, ScalarType type,
          std::initializer_list<int64_t> shape) {
  T* data = write_array<T>(op, name, t, type, shape);
  std::memset(static_cast<void*>(data), 0, static_cast<size_t>(t.numel()) * sizeof(T));
  return data;
}

cpu::HalpFormat read_format(const char* op, const Tensor& x, const Tensor& z) {
  const ScalarType data = x.scalar_type(), moved = z.scalar_type();
  if (data == ScalarType::Char && moved == ScalarType::Char) return cpu::HalpFormat::z8;
  if (data == ScalarType::Char && moved == ScalarType::Short) return cpu::HalpFormat::z16;
  TX_CHECK(data == ScalarType::Short && moved == ScalarType::Short, op,
           "x and z must be int8 and int8, int8 and int16, or int16 and int16, got ",
           dtype_name(data), " and ", dtype_name(moved));
  return cpu::HalpFormat::x16;
}

void halp_epoch(const Tensor& x, const Tensor& phi, const std::optional<Tensor>& weight,
                std::string loss, const Tensor& alpha_g, double alpha, double l2, double dx,
                double dz, int64_t steps, int64_t refresh, std::string noise, Tensor z,
                std::optional<Tensor> z_intercept, Tensor clips, std::optional<Tensor> gammas,
                const Tensor& key, int64_t stream) {
  constexpr const char* op = "_halp_epoch";
  cpu::HalpEpoch e{};
  e.format = read_format(op, x, z);
  const Inner inner(op, x, phi, weight, loss, alpha_g, alpha, l2, steps, z_intercept.has_value(),
                    key, stream);
  e.loop = inner.loop;
  e.alpha_g = inner.alpha_g;
  e.cols = inner.cols;
  Inner::positive(op, "dx", dx);
  Inner::positive(op, "dz", dz);
  const double most = e.format == cpu::HalpFormat::x16 ? 1.0 / 128 : 0.5;
  TX_CHECK(alpha * l2 < most, op, "alpha * l2 must be below ", most, ", got ", alpha * l2);
  e.dx = dx;
  e.dz = dz;
  e.refresh = check_range(op, "refresh", refresh, 0, int64_t{1} << 48);
  TX_CHECK(noise == "step" || noise == "nearest", op, "noise must be step or nearest, got ", noise);
  e.nearest = noise == "nearest";
  const int64_t m = e.loop.outputs;
  if (e.format == cpu::HalpFormat::z8)
    e.z = zeroed<int8_t>(op, "z", z, ScalarType::Char, {m, e.loop.pitch});
  else
    e.z = zeroed<int16_t>(op, "z", z, ScalarType::Short, {m, e.loop.pitch});
  if (z_intercept.has_value())
    e.z_intercept = zeroed<int32_t>(op, "z_intercept", *z_intercept, ScalarType::Int, {m});
  e.clips = write_array<int64_t>(op, "clips", clips, ScalarType::Long, {3});
  if (gammas.has_value())
    e.gammas = write_array<int32_t>(op, "gammas", *gammas, ScalarType::Int, {steps, m});
  cpu::halp_epoch(e);
}

void svrg_epoch(const Tensor& x, const Tensor& phi, const std::optional<Tensor>& weight,
                std::string loss, const Tensor& alpha_g, double alpha, double l2, double dx,
                double unit, int64_t steps, Tensor z, std::optional<Tensor> z_intercept,
                const Tensor& key, int64_t stream) {
  constexpr const char* op = "_svrg_epoch";
  check_dtype(op, "x", x, ScalarType::Float);
  const Inner inner(op, x, phi, weight, loss, alpha_g, alpha, l2, steps, z_intercept.has_value(),
                    key, stream);
  cpu::SvrgEpoch e{};
  e.loop = inner.loop;
  e.alpha_g = inner.alpha_g;
  e.cols = inner.cols;
  Inner::positive(op, "dx", dx);
  Inner::positive(op, "unit", unit);
  e.dx = dx;
  e.unit = static_cast<float>(unit);
  const int64_t m = e.loop.outputs;
  e.z = zeroed<float>(op, "z", z, ScalarType::Float, {m, e.loop.pitch});
  if (z_intercept.has_value())
    e.z_intercept = zeroed<float>(op, "z_intercept", *z_intercept, ScalarType::Float, {m});
  cpu::svrg_epoch(e);
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_halp_epoch", TORCH_BOX(&torchext::ops::halp_epoch));
  m.impl("_svrg_epoch", TORCH_BOX(&torchext::ops::svrg_epoch));
}
