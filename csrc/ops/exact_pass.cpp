// What full-batch solvers ask of full-precision rows and of scores: exact passes and loss terms.
#include "kernels/linear/exact_pass.h"

#include "kernels/linear/loss_terms.h"
#include "matrix.h"
#include "ordered_sums.h"
#include "row_loss.h"

namespace torchext::ops {
namespace {

constexpr int64_t kExactChunk = 1024;

/// Full-precision rows, or codes of one spacing for all columns.
Tensor read_rows(const char* op, const Tensor& x, cpu::RowType* type) {
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

/// Adds to gradient [outputs, cols + 1] and loss [1]; writes z [outputs, rows].
void exact_pass(const Tensor& x, const Tensor& w, const Tensor& offset, const Tensor& y,
                const std::optional<Tensor>& weight, std::string loss, Tensor z, Tensor gradient,
                Tensor total) {
  constexpr const char* op = "_exact_pass";
  cpu::ExactPass p{};
  const Tensor in = read_rows(op, x, &p.type);
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
  for (int64_t k = 0; p.loss == cpu::RowLoss::softmax && k < rows; ++k) {
    TX_CHECK(p.y[k] >= 0 && p.y[k] < static_cast<double>(m), op, "y must be class numbers in [0, ",
             m - 1, "], got ", p.y[k]);
  }
  if (weight.has_value())
    p.weight = read_array<double>(op, "weight", *weight, ScalarType::Double, {rows});
  check_dtype(op, "z", z, ScalarType::Float);
  check_shape(op, "z", z, {m, rows});
  TX_CHECK(rows <= 1 || z.stride(1) == 1, op, "z must have adjacent elements in a row, got stride ",
           z.stride(1));
  p.z = z.mutable_data_ptr<float>();
  p.z_stride = z.stride(0);
  double* sums = write_array<double>(op, "gradient", gradient, ScalarType::Double, {m, cols + 1});
  double* sum = write_array<double>(op, "total", total, ScalarType::Double, {1});

  const int64_t size = m * (cols + 1) + 1;
  auto* const kernel = cpu::exact_pass_kernel();
  ordered_sums(
      op, (rows + kExactChunk - 1) / kExactChunk, size,
      [&](int64_t chunk, double* part) {
        std::vector<double> scratch(static_cast<size_t>(cpu::kExactRows * m));
        const int64_t row = chunk * kExactChunk;
        kernel(p, row, std::min(row + kExactChunk, rows), scratch.data(), part, part + size - 1);
      },
      [&](const double* part) {
        for (int64_t i = 0; i < size - 1; ++i) sums[i] += part[i];
        *sum += part[size - 1];
      });
}

/// Slopes of a loss at scores that have moved, and their sums [outputs, kTermSums].
Tensor loss_terms(const Tensor& z, const Tensor& y, const std::optional<Tensor>& weight,
                  const std::optional<Tensor>& moved, const std::optional<Tensor>& score,
                  const std::optional<Tensor>& length, std::string loss,
                  const std::optional<Tensor>& slopes) {
  constexpr const char* op = "_loss_terms";
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
  TX_CHECK((a.score == nullptr) == (a.length == nullptr), op,
           "score and length must come together, got one of them");
  TX_CHECK(a.score == nullptr || a.moved != nullptr, op, "score needs moved, got none");
  Zeros sums(z, m, cpu::kTermSums);
  auto* const kernel = cpu::loss_terms_kernel();
  ordered_sums(
      op, (rows + cpu::kTermRows - 1) / cpu::kTermRows, sums.size,
      [&](int64_t chunk, double* part) {
        std::vector<float> scratch(static_cast<size_t>(cpu::kTermScratch * m));
        const int64_t row = chunk * cpu::kTermRows;
        kernel(a, row, std::min(row + cpu::kTermRows, rows), scratch.data(), part);
      },
      [&](const double* part) { sums.add(part); });
  return sums.tensor;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_exact_pass", TORCH_BOX(&torchext::ops::exact_pass));
  m.impl("_loss_terms", TORCH_BOX(&torchext::ops::loss_terms));
}
