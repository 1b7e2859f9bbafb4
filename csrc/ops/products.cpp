// Products over a whole data set: its codes with float vectors, and exact passes over its rows.
#include <algorithm>
#include <atomic>
#include <vector>

#include "codes.h"
#include "kernels/linear/code_products.h"
#include "kernels/linear/exact_pass.h"
#include "kernels/linear/scratch.h"
#include "matrix.h"

namespace torchext::ops {
namespace {

/// The codes with their tables padded to whole groups, as the tile kernels want them.
struct Codes {
  cpu::CodeMatrix matrix{};
  Scratch<uint8_t> table;

  Codes(const char* op, const Tensor& codes, int64_t rows, int64_t cols, int64_t bits,
        const Tensor& grid, const Tensor& books) {
    cpu::Epoch p{};
    read_codes(op, p, codes, rows, cols, bits, "tile4", grid, books);
    TX_CHECK(p.codes != nullptr, op, "bits must be in [1, 8], got ", bits);
    TX_CHECK(p.books == 1, op, "table must hold one book of levels, got ", p.books);
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

int check_outputs(const char* op, const char* name, const Tensor& t, int64_t cols) {
  TX_CHECK(t.dim() == 2 && t.size(0) >= 1 && t.size(1) == cols, op, name,
           " must have shape (outputs, ", cols, "), got ", shape_text(t));
  check_contiguous(op, name, t);
  return static_cast<int>(check_range(op, "outputs", t.size(0), 1, 65536));
}

Tensor code_dot(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits, const Tensor& grid,
                const Tensor& table, Tensor x, int64_t digits) {
  constexpr const char* op = "_code_dot";
  const Codes data(op, codes, rows, cols, bits, grid, table);
  const int count = check_digits(op, digits);
  check_dtype(op, "x", x, ScalarType::Double);
  const int m = check_outputs(op, "x", x, cols);
  Tensor z = torch::stable::new_empty(x, {m, rows}, ScalarType::Float);
  float* out = z.mutable_data_ptr<float>();
  const int64_t stride = (cols + 63) / 64 * 64;
  Scratch<int8_t> planes(m * count * stride);
  std::vector<double> sigma(static_cast<size_t>(m)), beta(static_cast<size_t>(m));
  cpu::round_model(data.matrix, x.mutable_data_ptr<double>(), m, count, stride, planes.data(),
                   sigma.data(), beta.data());
  const cpu::RoundedModel model{planes.data(), sigma.data(), beta.data(), m, count, stride};
  const int64_t quads = (rows + 4 * kTileRows - 1) / (4 * kTileRows), tiles = (rows + 63) / 64;
  std::atomic<bool> done{true};
  parallel_for(quads, 16, [&](int64_t b, int64_t e) {
    try {
      cpu::code_forward(data.matrix, model, 4 * b, std::min(4 * e, tiles), out, rows);
    } catch (...) {  // only memory can be short
      done = false;
    }
  });
  TX_CHECK(done, op, "memory must suffice for the products of 256 rows, got an allocation failure");
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
      cpu::round_slab(data.matrix, from, rows, m, count, s, stride, planes.data(),
                      scale.data() + s * m, total.data() + s * m);
    }
  });
  const int64_t parts = (((cols + 3) / 4) + 15) / 16;
  std::atomic<bool> done{true};
  parallel_for(parts, 1, [&](int64_t b, int64_t end) {
    try {
      cpu::code_backward(data.matrix, planes.data(), stride, m, count, scale.data(), total.data(),
                         16 * b, std::min(16 * end, ((cols + 3) / 4)), out, cols);
    } catch (...) {
      done = false;
    }
  });
  TX_CHECK(done, op, "memory must suffice for ", cols, " column sums, got an allocation failure");
  return g;
}

constexpr int64_t kExactChunk = 1024;

cpu::RowLoss read_loss(const char* op, const std::string& loss) {
  if (loss == "squared") return cpu::RowLoss::squared;
  if (loss == "logistic") return cpu::RowLoss::logistic;
  TX_CHECK(loss == "softmax", op, "loss must be squared, logistic or softmax, got ", loss);
  return cpu::RowLoss::softmax;
}

/// Adds to gradient [outputs, cols + 1] and loss [1]; writes z [outputs, rows].
void exact_pass(const Tensor& x, const Tensor& w, const Tensor& offset, const Tensor& y,
                const std::optional<Tensor>& weight, std::string loss, Tensor z, Tensor gradient,
                Tensor total) {
  constexpr const char* op = "_exact_pass";
  cpu::ExactPass p{};
  const Matrix in = read_matrix(op, x);
  const int64_t rows = in.rows, cols = in.cols;
  p.x = in.data;
  p.f64 = in.f64;
  p.stride = in.row_stride;
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

  // Chunks join in order, so that the bits do not depend on the threads; a round bounds the memory.
  const int64_t size = m * (cols + 1) + 1, chunks = (rows + kExactChunk - 1) / kExactChunk;
  const int64_t round = std::clamp<int64_t>((int64_t{1} << 21) / size, 2, 16);
  std::vector<double> work(static_cast<size_t>(std::min(round, chunks) * size));
  std::vector<double> scratch(static_cast<size_t>(std::min(round, chunks) * cpu::kExactRows * m));
  auto* const kernel = cpu::exact_pass_kernel();
  for (int64_t first = 0; first < chunks; first += round) {
    const int64_t count = std::min(round, chunks - first);
    std::fill(work.begin(), work.begin() + count * size, 0.0);
    parallel_for(count, 1, [&](int64_t b, int64_t e) {
      for (int64_t c = b; c < e; ++c) {
        const int64_t row = (first + c) * kExactChunk;
        double* part = work.data() + c * size;
        kernel(p, row, std::min(row + kExactChunk, rows), scratch.data() + c * cpu::kExactRows * m,
               part, part + size - 1);
      }
    });
    for (int64_t c = 0; c < count; ++c) {
      const double* part = work.data() + c * size;
      for (int64_t i = 0; i < size - 1; ++i) sums[i] += part[i];
      *sum += part[size - 1];
    }
  }
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_code_dot", TORCH_BOX(&torchext::ops::code_dot));
  m.impl("_code_sum", TORCH_BOX(&torchext::ops::code_sum));
  m.impl("_exact_pass", TORCH_BOX(&torchext::ops::exact_pass));
}
