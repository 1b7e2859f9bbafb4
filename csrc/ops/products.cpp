// Products of a whole data set's codes with float vectors.
#include <algorithm>
#include <vector>

#include "codes.h"
#include "kernels/linear/code_products.h"
#include "kernels/linear/scratch.h"
#include "matrix.h"
#include "ordered_sums.h"

namespace torchext::ops {
namespace {

/// The codes with their tables padded to whole groups, as the tile kernels want them.
struct Codes {
  cpu::CodeMatrix matrix{};
  Scratch<uint8_t> table;

  Codes(const char* op, const Tensor& codes, int64_t rows, int64_t cols, int64_t bits,
        const Tensor& grid, const Tensor& books) {
    const cpu::Epoch p = read_code_matrix(op, codes, rows, cols, bits, grid, books);
    matrix = {p.data, p.codes, p.grid, nullptr, 0, p.planes};
    if (p.table == nullptr) return;
    matrix.set_bytes = (((((cols + 3) / 4) * 4) << bits) + 63) / 64 * 64;
    table = Scratch<uint8_t>(p.planes * matrix.set_bytes + 64);
    const int64_t bytes = cols << bits;
    for (int s = 0; s < p.planes; ++s) {
      std::copy_n(p.table + s * bytes, bytes, table.data() + s * matrix.set_bytes);
    }
    matrix.table = table.data();
  }
};

int check_digits(const char* op, int64_t digits) {
  return static_cast<int>(check_range(op, "digits", digits, 1, 2));
}

/// Vectors x [m, cols], rounded in place to what the kernels multiply with.
struct Model {
  Scratch<int8_t> planes;
  std::vector<double> sigma, beta;
  cpu::RoundedModel rounded{};

  Model(const char* op, const Codes& data, Tensor& x, int64_t digits) {
    const int count = check_digits(op, digits);
    const int64_t cols = data.matrix.data.cols, stride = (cols + 63) / 64 * 64;
    check_dtype(op, "x", x, ScalarType::Double);
    const int m = check_outputs(op, "x", x, cols);
    planes = Scratch<int8_t>(m * count * stride);
    sigma.resize(static_cast<size_t>(m));
    beta.resize(static_cast<size_t>(m));
    cpu::round_model(data.matrix, x.mutable_data_ptr<double>(), m, count, stride, planes.data(),
                     sigma.data(), beta.data());
    rounded = {planes.data(), sigma.data(), beta.data(), m, count, stride};
  }
};

Tensor code_dot(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits, const Tensor& grid,
                const Tensor& table, Tensor x, int64_t digits) {
  constexpr const char* op = "_code_dot";
  const Codes data(op, codes, rows, cols, bits, grid, table);
  const Model model(op, data, x, digits);
  Tensor z = torch::stable::new_empty(x, {model.rounded.outputs, rows}, ScalarType::Float);
  float* out = z.mutable_data_ptr<float>();
  const int64_t quads = (rows + 4 * kTileRows - 1) / (4 * kTileRows),
                tiles = (rows + kTileRows - 1) / kTileRows;
  parallel_work(op, quads, 16, [&](int64_t b, int64_t e) {
    cpu::code_forward(data.matrix, model.rounded, 4 * b, std::min(4 * e, tiles), out, rows);
  });
  return z;
}

Tensor code_sum(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits, const Tensor& grid,
                const Tensor& table, const Tensor& e, int64_t digits) {
  constexpr const char* op = "_code_sum";
  const Codes data(op, codes, rows, cols, bits, grid, table);
  const int count = check_digits(op, digits);
  check_dtype(op, "e", e, ScalarType::Float);
  const int m = check_outputs(op, "e", e, rows);
  const float* from = e.const_data_ptr<float>();
  Tensor g = torch::stable::new_empty(e, {m, cols}, ScalarType::Double);
  double* out = g.mutable_data_ptr<double>();
  const int64_t stride = (rows + 255) / 256 * 256,
                slabs = (rows + cpu::kSlabRows - 1) / cpu::kSlabRows;
  Scratch<int8_t> planes(m * count * stride);
  std::vector<double> scale(static_cast<size_t>(slabs * m)), total(static_cast<size_t>(slabs * m));
  parallel_for(slabs, 1, [&](int64_t b, int64_t end) {
    for (int64_t s = b; s < end; ++s) {
      const int64_t row = s * cpu::kSlabRows;
      cpu::round_rows(from + row, rows, std::min(cpu::kSlabRows, rows - row), m, count, stride,
                      planes.data() + row, scale.data() + s * m, total.data() + s * m);
    }
  });
  const int64_t groups = (cols + 3) / 4, parts = (groups + 15) / 16;
  parallel_work(op, parts, 1, [&](int64_t b, int64_t end) {
    cpu::code_backward(data.matrix, planes.data(), stride, m, count, scale.data(), total.data(),
                       16 * b, std::min(16 * end, groups), out, cols);
  });
  return g;
}

/// x [m, cols] is rounded in place to x'; z = (Q + shift) x' + offset, e = v o z rounded; returns
/// Q^T e and the sum of e, [m, cols + 1].
Tensor code_gram(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits, const Tensor& grid,
                 const Tensor& table, Tensor x, const std::optional<Tensor>& offset,
                 const std::optional<Tensor>& shift, const std::optional<Tensor>& weight,
                 int64_t digits) {
  constexpr const char* op = "_code_gram";
  const Codes data(op, codes, rows, cols, bits, grid, table);
  Model model(op, data, x, digits);
  const int64_t m = model.rounded.outputs;
  if (offset.has_value()) {
    const double* add = read_array<double>(op, "offset", *offset, ScalarType::Double, {m});
    for (int64_t o = 0; o < m; ++o) model.beta[static_cast<size_t>(o)] += add[o];
  }
  if (shift.has_value()) {
    const double* by = read_array<double>(op, "shift", *shift, ScalarType::Double, {cols});
    const double* rounded = x.const_data_ptr<double>();
    for (int64_t o = 0; o < m; ++o) {
      for (int64_t j = 0; j < cols; ++j)
        model.beta[static_cast<size_t>(o)] += by[j] * rounded[o * cols + j];
    }
  }
  const float* v = nullptr;
  if (weight.has_value()) v = read_array<float>(op, "weight", *weight, ScalarType::Float, {rows});
  Zeros g(x, m, cols + 1);
  ordered_sums(
      op, (rows + cpu::kGramRows - 1) / cpu::kGramRows, g.size,
      [&](int64_t slab, double* sums) {
        cpu::code_gram(data.matrix, model.rounded, v, slab, sums);
      },
      [&](const double* part) { g.add(part); });
  return g.tensor;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_code_dot", TORCH_BOX(&torchext::ops::code_dot));
  m.impl("_code_sum", TORCH_BOX(&torchext::ops::code_sum));
  m.impl("_code_gram", TORCH_BOX(&torchext::ops::code_gram));
}
