// Arguments of _encode, read and checked for the CPU and the CUDA op alike: nothing here looks at
// data.
#pragma once

#include "kernels/encode_plan.h"
#include "kernels/layout.h"
#include "matrix.h"

namespace torchext::ops {

/// All but the key and the values of `position`, which may lie in a GPU's memory.
struct EncodeArguments {
  Matrix x;
  cpu::EncodeOptions options;
  cpu::EncodeRows rows;
  double *sums, *totals;
  int64_t* clipped;
};

inline cpu::EncodeMode read_mode(const char* op, const std::string& mode) {
  if (mode == "nearest") return cpu::EncodeMode::nearest;
  if (mode == "stochastic") return cpu::EncodeMode::stochastic;
  TX_CHECK(mode == "double", op, "mode must be nearest, stochastic or double, got ", mode);
  return cpu::EncodeMode::twice;
}

inline EncodeArguments read_encode(const char* op, const Tensor& x, const Tensor& mean,
                                   const Tensor& scale, const Tensor& grid, const Tensor& levels,
                                   const std::string& mode, int64_t bits, int64_t row0,
                                   const std::optional<Tensor>& position, int64_t copy,
                                   const Tensor& codes, const std::optional<Tensor>& y,
                                   const std::optional<Tensor>& weight,
                                   const std::optional<Tensor>& x0,
                                   const std::optional<Tensor>& intercept, const std::string& loss,
                                   const std::optional<Tensor>& bounds, const Tensor& sums,
                                   const Tensor& totals, const Tensor& clipped) {
  EncodeArguments in{read_matrix(op, x), {}, {}, nullptr, nullptr, nullptr};
  const Matrix& m = in.x;
  cpu::EncodeOptions& o = in.options;
  o.cols = m.cols;
  TX_CHECK(valid_bits(bits), op, "bits must be 1..8 or 16, got ", bits);
  o.bits = static_cast<int>(bits);
  o.mode = read_mode(op, mode);
  TX_CHECK(o.mode != cpu::EncodeMode::twice || bits >= 2, op,
           "bits must be at least 2 in mode double, got ", bits);
  o.copy = static_cast<uint32_t>(check_range(op, "copy", copy, 0, 0xFFFFFFFFll));
  check_range(op, "row0", row0, 0, int64_t{1} << 56);
  TX_CHECK(row0 % cpu::kEncodeTile == 0, op, "row0 must be a multiple of 64, got ", row0);
  o.mean = read_array<double>(op, "mean", mean, ScalarType::Double, {m.cols});
  o.scale = read_array<double>(op, "scale", scale, ScalarType::Double, {m.cols});
  o.grid = read_array<float>(op, "grid", grid, ScalarType::Float, {m.cols, 2});
  o.count = cpu::encode_level_count(o.mode, o.bits);
  if (levels.numel() > 0) {
    TX_CHECK(bits <= 8, op, "levels must be empty (affine) for more than 8 bits, got ",
             shape_text(levels));
    o.levels = read_array<float>(op, "levels", levels, ScalarType::Float, {m.cols, o.count});
  }
  if (bounds.has_value())
    o.bounds = read_array<float>(op, "bounds", *bounds, ScalarType::Float, {m.cols, 2});
  in.rows = {m.data, m.f64, m.row_stride, row0, m.rows, nullptr, nullptr, nullptr, nullptr};
  if (position.has_value())
    in.rows.position = read_array<int64_t>(op, "rows", *position, ScalarType::Long, {m.rows});
  if (y.has_value()) {
    TX_CHECK(y->dim() == 2, op, "y must have shape (rows, outputs), got ", shape_text(*y));
    o.outputs = y->size(1);
    in.rows.y = read_array<float>(op, "y", *y, ScalarType::Float, {m.rows, o.outputs});
  }
  if (weight.has_value())
    in.rows.weight = read_array<float>(op, "weight", *weight, ScalarType::Float, {m.rows});
  if (x0.has_value()) {
    TX_CHECK(y.has_value(), op, "x0 must come with y, got no y");
    o.x0 = read_array<float>(op, "x0", *x0, ScalarType::Float, {o.outputs, m.cols});
    if (intercept.has_value()) {
      o.intercept = read_array<float>(op, "intercept", *intercept, ScalarType::Float, {o.outputs});
    }
  }
  TX_CHECK(loss == "squared_error" || loss == "log_loss", op,
           "loss must be squared_error or log_loss, got ", loss);
  o.loss = loss == "log_loss" ? cpu::AnchorLoss::log_loss : cpu::AnchorLoss::squared_error;
  in.rows.codes = write_array<uint8_t>(op, "codes", codes, ScalarType::Byte,
                                       {layout_bytes({Layout::tile4, o.bits, m.rows, m.cols})});
  in.sums = write_array<double>(op, "sums", sums, ScalarType::Double,
                                {cpu::kMoments + cpu::kOutputSums * o.outputs, m.cols});
  in.totals = write_array<double>(op, "totals", totals, ScalarType::Double, {4, o.outputs + 1});
  in.clipped = write_array<int64_t>(op, "clipped", clipped, ScalarType::Long, {m.cols});
  return in;
}

}  // namespace torchext::ops
