// What full-batch solvers ask for: products of codes with float vectors, exact passes, loss terms.
#include <algorithm>
#include <atomic>
#include <vector>

#include "codes.h"
#include "kernels/linear/code_products.h"
#include "kernels/linear/exact_pass.h"
#include "kernels/linear/loss_terms.h"
#include "kernels/linear/scratch.h"
#include "matrix.h"

namespace torchext::ops {
namespace {

/// A new float64 tensor [rows, cols] of zeros, and where it is.
struct Zeros {
  Tensor tensor;
  double* data;
  int64_t size;

  Zeros(const Tensor& like, int64_t rows, int64_t cols)
      : tensor(torch::stable::new_empty(like, {rows, cols}, ScalarType::Double)),
        data(tensor.mutable_data_ptr<double>()),
        size(rows * cols) {
    std::fill_n(data, size, 0.0);
  }
  void add(const double* part) {
    for (int64_t i = 0; i < size; ++i) data[i] += part[i];
  }
};

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

/// Runs work(begin, end) over [0, n) in parallel; only memory can be short inside.
template <class Work>
void parallel_work(const char* op, int64_t n, int64_t grain, Work work) {
  std::atomic<bool> done{true};
  parallel_for(n, grain, [&](int64_t b, int64_t e) {
    try {
      work(b, e);
    } catch (...) {
      done = false;
    }
  });
  TX_CHECK(done, op,
           "memory must suffice for the scratch of each thread, got an allocation failure");
}

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

/// Sums of `size` doubles over `count` pieces: work(piece, sums) adds to zeroed sums, join(sums)
/// takes them in order, so that no bit depends on the threads; rounds of pieces bound the memory.
template <class Work, class Join>
void ordered_sums(const char* op, int64_t count, int64_t size, Work work, Join join) {
  const int64_t round = std::min(count, std::clamp<int64_t>((int64_t{1} << 21) / size, 2, 16));
  std::vector<double> sums(static_cast<size_t>(round * size));
  for (int64_t first = 0; first < count; first += round) {
    const int64_t now = std::min(round, count - first);
    std::fill(sums.begin(), sums.begin() + now * size, 0.0);
    parallel_work(op, now, 1, [&](int64_t b, int64_t e) {
      for (int64_t c = b; c < e; ++c) work(first + c, sums.data() + c * size);
    });
    for (int64_t c = 0; c < now; ++c) join(sums.data() + c * size);
  }
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
  m.impl("_code_dot", TORCH_BOX(&torchext::ops::code_dot));
  m.impl("_code_sum", TORCH_BOX(&torchext::ops::code_sum));
  m.impl("_code_gram", TORCH_BOX(&torchext::ops::code_gram));
  m.impl("_loss_terms", TORCH_BOX(&torchext::ops::loss_terms));
  m.impl("_exact_pass", TORCH_BOX(&torchext::ops::exact_pass));
}
