// Arguments of the inner epochs of SVRG and HALP; the CPU and CUDA ops share the checks.
#pragma once

#include <cmath>

#include "kernels/linear/inner_loop.h"
#include "matrix.h"
#include "row_loss.h"

namespace torchext::ops {

inline void check_positive(const char* op, const char* name, double value) {
  TX_CHECK(value > 0 && std::isfinite(value), op, name, " must be positive, got ", value);
}

/// What both ops take: loop without its cache and key, and what these come from.
struct InnerArgs {
  static constexpr int64_t kMostCols = int64_t{1} << 20;  // 32-bit lanes hold the products of a row

  cpu::InnerLoop loop{};
  int64_t cols = 0;
  const double* alpha_g = nullptr;
  const float* phi = nullptr;  // [outputs, rows]

  InnerArgs(const char* op, const Tensor& x, const Tensor& phi_in,
            const std::optional<Tensor>& weight, const std::string& loss, const Tensor& alpha_g_in,
            double alpha, double l2, int64_t steps, int64_t batch, bool intercept,
            const Tensor& key, int64_t stream) {
    TX_CHECK(x.dim() == 2 && x.size(0) >= 1 && x.size(1) >= 64 && x.size(1) % 64 == 0, op,
             "x must have shape (rows >= 1, a multiple of 64), got ", shape_text(x));
    check_contiguous(op, "x", x);
    loop.x = x.const_data_ptr();
    loop.rows = check_range(op, "rows", x.size(0), 1, 0xFFFFFFFFll);
    loop.pitch = check_range(op, "columns", x.size(1), 64, kMostCols);
    TX_CHECK(phi_in.dim() == 2 && phi_in.size(0) >= 1, op, "phi must have shape (outputs, ",
             loop.rows, "), got ", shape_text(phi_in));
    loop.outputs = static_cast<int>(check_range(op, "outputs", phi_in.size(0), 1, 65536));
    loop.loss = read_loss(op, loss);
    TX_CHECK(loop.loss != cpu::RowLoss::logistic || loop.outputs == 1, op,
             "phi must have one row with the logistic loss, got ", loop.outputs);
    phi = read_array<float>(op, "phi", phi_in, ScalarType::Float, {loop.outputs, loop.rows});
    if (weight.has_value())
      loop.weight = read_array<float>(op, "weight", *weight, ScalarType::Float, {loop.rows});
    check_dtype(op, "alpha_g", alpha_g_in, ScalarType::Double);
    TX_CHECK(alpha_g_in.dim() == 2 && alpha_g_in.size(1) >= 1, op,
             "alpha_g must have shape (outputs, columns + 1), got ", shape_text(alpha_g_in));
    cols = check_range(op, "columns", alpha_g_in.size(1) - 1, 0, loop.pitch);
    alpha_g =
        read_array<double>(op, "alpha_g", alpha_g_in, ScalarType::Double, {loop.outputs, cols + 1});
    check_positive(op, "alpha", alpha);
    TX_CHECK(l2 >= 0 && std::isfinite(l2), op, "l2 must be >= 0, got ", l2);
    loop.alpha = alpha;
    loop.l2 = l2;
    loop.steps = check_range(op, "steps", steps, 0, int64_t{1} << 47);  // times batch: an int64
    loop.batch = check_range(op, "batch", batch, 1, cpu::kMostBatch);
    loop.intercept = intercept;
    check_key(op, key);
    loop.stream = to_stream(op, stream);
  }
};

inline cpu::HalpFormat read_format(const char* op, const Tensor& x, const Tensor& z) {
  const ScalarType data = x.scalar_type(), moved = z.scalar_type();
  if (data == ScalarType::Char && moved == ScalarType::Char) return cpu::HalpFormat::z8;
  if (data == ScalarType::Char && moved == ScalarType::Short) return cpu::HalpFormat::z16;
  TX_CHECK(data == ScalarType::Short && moved == ScalarType::Short, op,
           "x and z must be int8 and int8, int8 and int16, or int16 and int16, got ",
           dtype_name(data), " and ", dtype_name(moved));
  return cpu::HalpFormat::x16;
}

/// Checks what only HALP takes; z and clips are those of the op. The memory of z is not zeroed.
inline cpu::HalpEpoch read_halp_epoch(const char* op, const InnerArgs& args, cpu::HalpFormat format,
                                      double dx, double dz, int64_t refresh,
                                      const std::string& noise, const Tensor& z,
                                      const std::optional<Tensor>& z_intercept, const Tensor& clips,
                                      const std::optional<Tensor>& gammas) {
  cpu::HalpEpoch e{};
  e.format = format;
  e.loop = args.loop;
  e.alpha_g = args.alpha_g;
  e.cols = args.cols;
  check_positive(op, "dx", dx);
  check_positive(op, "dz", dz);
  const double most = format == cpu::HalpFormat::x16 ? 1.0 / 128 : 0.5,
               decay = args.loop.alpha * args.loop.l2;
  TX_CHECK(decay < most, op, "alpha * l2 must be below ", most, ", got ", decay);
  e.dx = dx;
  e.dz = dz;
  e.refresh = check_range(op, "refresh", refresh, 0, int64_t{1} << 48);
  TX_CHECK(noise == "step" || noise == "nearest", op, "noise must be step or nearest, got ", noise);
  e.nearest = noise == "nearest";
  const int64_t m = args.loop.outputs;
  if (format == cpu::HalpFormat::z8)
    e.z = write_array<int8_t>(op, "z", z, ScalarType::Char, {m, args.loop.pitch});
  else
    e.z = write_array<int16_t>(op, "z", z, ScalarType::Short, {m, args.loop.pitch});
  if (z_intercept.has_value())
    e.z_intercept = write_array<int32_t>(op, "z_intercept", *z_intercept, ScalarType::Int, {m});
  e.clips = write_array<int64_t>(op, "clips", clips, ScalarType::Long, {3});
  if (gammas.has_value())
    e.gammas = write_array<int32_t>(op, "gammas", *gammas, ScalarType::Int,
                                    {args.loop.steps * args.loop.batch, m});
  return e;
}

/// The same for SVRG.
inline cpu::SvrgEpoch read_svrg_epoch(const char* op, const InnerArgs& args, double dx, double unit,
                                      const Tensor& z, const std::optional<Tensor>& z_intercept) {
  cpu::SvrgEpoch e{};
  e.loop = args.loop;
  e.alpha_g = args.alpha_g;
  e.cols = args.cols;
  check_positive(op, "dx", dx);
  check_positive(op, "unit", unit);
  e.dx = dx;
  e.unit = static_cast<float>(unit);
  const int64_t m = args.loop.outputs;
  e.z = write_array<float>(op, "z", z, ScalarType::Float, {m, args.loop.pitch});
  if (z_intercept.has_value())
    e.z_intercept = write_array<float>(op, "z_intercept", *z_intercept, ScalarType::Float, {m});
  return e;
}

}  // namespace torchext::ops
