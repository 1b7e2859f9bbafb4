// Arguments of the exact pass and of the loss terms; the CPU and CUDA ops share the checks.
#pragma once

#include "kernels/linear/exact_pass.h"
#include "kernels/linear/loss_terms.h"
#include "matrix.h"
#include "row_loss.h"

namespace torchext::ops {

/// Full-precision rows, or codes of one spacing for all columns.
inline Tensor read_exact_rows(const char* op, const Tensor& x, cpu::RowType* type) {
  const ScalarType code = x.scalar_type();
  if (code != ScalarType::Char && code != ScalarType::Short) {
    const Matrix in = read_matrix(op, x);
    *type = in.f64 ? cpu::RowType::f64 : cpu::RowType::f32;
    return in.keep;
  }
  *type = code == ScalarType::Char ? cpu::RowType::i8 : cpu::RowType::i16;
  TX_CHECK(x.dim() == 2, op, "x must have shape (rows, columns), got ", shape_text(x));
  TX_CHECK(x.size(1) <= 1 || x.stride(1) == 1, op,
           "x must have adjacent elements in a row, got stride ", x.stride(1));
  return x;
}

/// What an exact pass reads and writes.
struct ExactPassArgs {
  cpu::ExactPass pass{};
  Tensor keep;  // the memory behind pass.x
  int64_t rows = 0;
  double *gradient = nullptr, *total = nullptr;  // [outputs, cols + 1] and [1], added to
};

inline ExactPassArgs read_exact_pass(const char* op, const Tensor& x, const Tensor& w,
                                     const Tensor& offset, const Tensor& y,
                                     const std::optional<Tensor>& weight, const std::string& loss,
                                     const Tensor& z, const Tensor& gradient, const Tensor& total) {
  cpu::ExactPass p{};
  Tensor in = read_exact_rows(op, x, &p.type);
  const int64_t rows = in.size(0), cols = in.size(1);
  p.x = in.const_data_ptr();
  p.stride = in.stride(0);
  p.cols = cols;
  check_dtype(op, "w", w, ScalarType::Double);
  p.outputs = check_outputs(op, "w", w, cols);
  const int64_t m = p.outputs;
  p.w = w.const_data_ptr<double>();
  p.offset = read_array<double>(op, "offset", offset, ScalarType::Double, {m});
  p.loss = read_loss(op, loss);
  p.y = read_array<double>(op, "y", y, ScalarType::Double,
                           {rows, p.loss == cpu::RowLoss::softmax ? 1 : m});
  if (weight.has_value())
    p.weight = read_array<double>(op, "weight", *weight, ScalarType::Double, {rows});
  check_dtype(op, "z", z, ScalarType::Float);
  check_shape(op, "z", z, {m, rows});
  TX_CHECK(rows <= 1 || z.stride(1) == 1, op, "z must have adjacent elements in a row, got stride ",
           z.stride(1));
  p.z = const_cast<float*>(z.const_data_ptr<float>());
  p.z_stride = z.stride(0);
  double* sums = write_array<double>(op, "gradient", gradient, ScalarType::Double, {m, cols + 1});
  double* sum = write_array<double>(op, "total", total, ScalarType::Double, {1});
  return {p, std::move(in), rows, sums, sum};
}

inline cpu::LossTerms read_loss_terms(const char* op, const Tensor& z, const Tensor& y,
                                      const std::optional<Tensor>& weight,
                                      const std::optional<Tensor>& moved,
                                      const std::optional<Tensor>& score,
                                      const std::optional<Tensor>& length, const std::string& loss,
                                      const std::optional<Tensor>& slopes) {
  cpu::LossTerms a{};
  a.loss = read_loss(op, loss);
  check_dtype(op, "z", z, ScalarType::Float);
  TX_CHECK(z.dim() == 2 && z.size(0) >= 1 && (z.size(1) <= 1 || z.stride(1) == 1), op,
           "z must have shape (outputs, rows) and adjacent elements in a row, got ", shape_text(z));
  const int64_t m = z.size(0), rows = z.size(1);
  a.outputs = static_cast<int>(check_range(op, "outputs", m, 1, 65536));
  a.rows = rows;
  a.z = z.const_data_ptr<float>();
  a.z_stride = z.stride(0);
  const auto read = [&](const char* name, const std::optional<Tensor>& t,
                        std::initializer_list<int64_t> shape) -> const float* {
    return t.has_value() ? read_array<float>(op, name, *t, ScalarType::Float, shape) : nullptr;
  };
  a.y = read("y", y, {a.loss == cpu::RowLoss::softmax ? 1 : m, rows});
  a.weight = read("weight", weight, {rows});
  a.moved = read("moved", moved, {m, rows});
  a.score = read("score", score, {m, rows});
  a.length = read("length", length, {m});
  a.slopes = const_cast<float*>(read("slopes", slopes, {m, rows}));
  TX_CHECK(score.has_value() == length.has_value(), op,
           "score and length must come together, got one of them");
  TX_CHECK(!score.has_value() || moved.has_value(), op, "score needs moved, got none");
  return a;
}

}  // namespace torchext::ops
