// What full-batch solvers ask of full-precision rows and of scores: exact passes and loss terms.
#include "exact_pass.h"

#include "ordered_sums.h"

namespace torchext::ops {
namespace {

/// Adds to gradient [outputs, cols + 1] and loss [1]; writes z [outputs, rows].
void exact_pass(const Tensor& x, const Tensor& w, const Tensor& offset, const Tensor& y,
                const std::optional<Tensor>& weight, std::string loss, Tensor z, Tensor gradient,
                Tensor total) {
  constexpr const char* op = "_exact_pass";
  const ExactPassArgs args = read_exact_pass(op, x, w, offset, y, weight, loss, z, gradient, total);
  const cpu::ExactPass& p = args.pass;
  const int64_t m = p.outputs, rows = args.rows, size = m * (p.cols + 1) + 1;
  for (int64_t k = 0; p.loss == cpu::RowLoss::softmax && k < rows; ++k) {
    TX_CHECK(p.y[k] >= 0 && p.y[k] < static_cast<double>(m), op, "y must be class numbers in [0, ",
             m - 1, "], got ", p.y[k]);
  }
  auto* const kernel = cpu::exact_pass_kernel();
  ordered_sums(
      op, (rows + cpu::kExactChunk - 1) / cpu::kExactChunk, size,
      [&](int64_t chunk, double* part) {
        std::vector<double> scratch(static_cast<size_t>(cpu::kExactRows * m));
        const int64_t row = chunk * cpu::kExactChunk;
        kernel(p, row, std::min(row + cpu::kExactChunk, rows), scratch.data(), part,
               part + size - 1);
      },
      [&](const double* part) {
        for (int64_t i = 0; i < size - 1; ++i) args.gradient[i] += part[i];
        *args.total += part[size - 1];
      });
}

/// Slopes of a loss at scores that have moved, and their sums [outputs, kTermSums].
Tensor loss_terms(const Tensor& z, const Tensor& y, const std::optional<Tensor>& weight,
                  const std::optional<Tensor>& moved, const std::optional<Tensor>& score,
                  const std::optional<Tensor>& length, std::string loss,
                  const std::optional<Tensor>& slopes) {
  constexpr const char* op = "_loss_terms";
  const cpu::LossTerms a = read_loss_terms(op, z, y, weight, moved, score, length, loss, slopes);
  const int64_t m = a.outputs, rows = a.rows;
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
