// Mini-batch SGD over the codes of a data set, and their decoding.
#include "codes.h"

namespace torchext::ops {

void read_codes(const char* op, cpu::Epoch& p, const Tensor& codes, int64_t rows, int64_t cols,
                int64_t bits, const std::string& layout, const Tensor& grid, const Tensor& table) {
  check_range(op, "rows", rows, 1, int64_t{1} << 40);
  check_range(op, "cols", cols, 1, cpu::kMaxCols);
  TX_CHECK(bits == 32 || (bits >= 1 && bits <= 8), op, "bits must be in [1, 8] or 32, got ", bits);
  p.data = {Layout::tile4, static_cast<int>(bits), rows, cols};
  p.books = p.planes = 1;
  check_contiguous(op, "codes", codes);
  if (bits == 32) {
    check_dtype(op, "codes", codes, ScalarType::Float);
    check_shape(op, "codes", codes, {rows, (cols + 15) / 16 * 16});
    p.dense = codes.const_data_ptr<float>();
    return;
  }
  TX_CHECK(layout == "tile4" || layout == "block" || layout == "row", op,
           "layout must be tile4, block or row, got ", layout);
  p.data.kind = layout == "tile4" ? Layout::tile4 : layout == "block" ? Layout::block : Layout::row;
  check_dtype(op, "codes", codes, ScalarType::Byte);
  TX_CHECK(codes.dim() == 1 && codes.numel() >= layout_bytes(p.data), op, "codes must hold ",
           layout_bytes(p.data), " bytes in one dimension, got shape ", shape_text(codes));
  p.codes = codes.const_data_ptr<uint8_t>();
  check_dtype(op, "grid", grid, ScalarType::Float);
  check_shape(op, "grid", grid, {cols, 2});
  check_contiguous(op, "grid", grid);
  p.grid = grid.const_data_ptr<float>();
  check_dtype(op, "table", table, ScalarType::Byte);
  if (table.numel() == 0) return;
  check_contiguous(op, "table", table);
  const bool fits = table.dim() == 4 && table.sizes()[0] >= 1 && table.sizes()[0] <= 2 &&
                    table.sizes()[1] >= 1 && table.sizes()[1] <= 2 && table.sizes()[2] == cols &&
                    table.sizes()[3] == int64_t{1} << bits;
  TX_CHECK(fits, op, "table must be empty or have shape (1 or 2, 1 or 2, ", cols, ", ",
           int64_t{1} << bits, "), got ", shape_text(table));
  p.table = table.const_data_ptr<uint8_t>();
  p.planes = static_cast<int>(table.sizes()[0]);
  p.books = static_cast<int>(table.sizes()[1]);
}

namespace {

const float* optional_floats(const char* op, const char* name, const std::optional<Tensor>& t,
                             std::initializer_list<int64_t> shape) {
  if (!t.has_value()) return nullptr;
  check_dtype(op, name, *t, ScalarType::Float);
  check_shape(op, name, *t, shape);
  check_contiguous(op, name, *t);
  return t->const_data_ptr<float>();
}

/// Per-output terms may have one more column, the intercept's.
const float* optional_model(const char* op, const char* name, const std::optional<Tensor>& t,
                            int64_t outputs, int64_t cols, int64_t* width) {
  if (!t.has_value()) return nullptr;
  *width = t->dim() == 2 && t->sizes()[1] == cols + 1 ? cols + 1 : cols;
  return optional_floats(op, name, t, {outputs, *width});
}

int read_bits(const char* op, const char* name, int64_t bits, int64_t none) {
  TX_CHECK(bits == none || (bits >= 2 && bits <= 8), op, name, " must be in [2, 8] or ", none,
           ", got ", bits);
  return static_cast<int>(bits);
}

float* model_floats(const char* op, const char* name, Tensor& t,
                    std::initializer_list<int64_t> shape) {
  check_dtype(op, name, t, ScalarType::Float);
  check_shape(op, name, t, shape);
  check_contiguous(op, name, t);
  return t.mutable_data_ptr<float>();
}

Tensor sgd_epoch(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits, std::string layout,
                 const Tensor& grid, const Tensor& table, std::optional<Tensor> y,
                 std::optional<Tensor> weight, std::optional<Tensor> z0, Tensor x, Tensor intercept,
                 std::optional<Tensor> x0, std::optional<Tensor> constant,
                 std::optional<Tensor> shrink, std::optional<Tensor> average, const Tensor& order,
                 const Tensor& gamma, int64_t batch, std::string loss, double l1, double l2,
                 bool variance_reduced, bool fit_intercept, int64_t model_bits,
                 int64_t residual_bits, int64_t gradient_bits, const Tensor& key,
                 int64_t first_step, int64_t threads) {
  constexpr const char* op = "_sgd_epoch";
  cpu::Epoch p{};
  read_codes(op, p, codes, rows, cols, bits, layout, grid, table);
  TX_CHECK(x.dim() == 2 && x.sizes()[0] >= 1, op, "x must have shape (outputs, ", cols, "), got ",
           shape_text(x));
  const int64_t m = check_range(op, "outputs", x.sizes()[0], 1, 65536);
  p.outputs = static_cast<int>(m);
  p.x = model_floats(op, "x", x, {m, cols});
  p.intercept = model_floats(op, "intercept", intercept, {m});
  p.y = optional_floats(op, "y", y, {rows, m});
  p.weight = optional_floats(op, "weight", weight, {rows});
  p.z0 = optional_floats(op, "z0", z0, {rows, m});
  p.x0 = optional_model(op, "x0", x0, m, cols, &p.x0_cols);
  p.constant = optional_model(op, "constant", constant, m, cols, &p.constant_cols);
  p.shrink = optional_floats(op, "shrink", shrink, {cols});
  if (average.has_value()) {
    check_dtype(op, "average", *average, ScalarType::Double);
    check_shape(op, "average", *average, {m, cols + 1});
    check_contiguous(op, "average", *average);
    p.average = average->mutable_data_ptr<double>();
  }
  p.batch = check_range(op, "batch", batch, 1, int64_t{1} << 40);
  check_dtype(op, "order", order, ScalarType::Long);
  TX_CHECK(order.dim() == 1, op, "order must have one dimension, got ", shape_text(order));
  check_contiguous(op, "order", order);
  p.steps = order.numel();
  check_dtype(op, "gamma", gamma, ScalarType::Double);
  check_shape(op, "gamma", gamma, {p.steps});
  check_contiguous(op, "gamma", gamma);
  p.order = order.const_data_ptr<int64_t>();
  p.gamma = gamma.const_data_ptr<double>();
  const int64_t batches = (rows + batch - 1) / batch;
  for (int64_t i = 0; i < p.steps; ++i) check_range(op, "order", p.order[i], 0, batches - 1);
  TX_CHECK(loss == "squared_error" || loss == "log_loss", op,
           "loss must be squared_error or log_loss, got ", loss);
  p.loss = loss == "log_loss" ? cpu::Loss::log_loss : cpu::Loss::squared_error;
  p.variance_reduced = variance_reduced;
  p.fit_intercept = fit_intercept;
  TX_CHECK(!variance_reduced || p.x0 != nullptr, op,
           "x0 must be given with variance_reduced, got none");
  TX_CHECK(p.loss == cpu::Loss::squared_error || p.y != nullptr, op,
           "y must be given with log_loss, got none");
  TX_CHECK(p.loss == cpu::Loss::squared_error || !variance_reduced || p.z0 != nullptr, op,
           "z0 must be given with log_loss and variance_reduced, got none");
  p.l1 = static_cast<float>(l1);
  p.l2 = static_cast<float>(l2);
  p.model_bits = read_bits(op, "model_bits", model_bits, 32);
  p.residual_bits = read_bits(op, "residual_bits", residual_bits, 32);
  p.gradient_bits = read_bits(op, "gradient_bits", gradient_bits, 0);
  p.key = read_key(op, key);
  p.first_step = static_cast<uint32_t>(check_range(op, "first_step", first_step, 0, 0xFFFFFFFFll));
  p.threads = static_cast<int>(check_range(op, "threads", threads, 1, 1024));
  Tensor sums = torch::stable::new_empty(x, {3, m}, ScalarType::Double);
  p.sums = sums.mutable_data_ptr<double>();
  cpu::sgd_epoch(p);
  return sums;
}

Tensor sgd_decode(const Tensor& codes, int64_t rows, int64_t cols, int64_t bits, std::string layout,
                  const Tensor& grid, const Tensor& table, const Tensor& row_index, int64_t draw) {
  constexpr const char* op = "_sgd_decode";
  cpu::Epoch p{};
  read_codes(op, p, codes, rows, cols, bits, layout, grid, table);
  check_range(op, "draw", draw, 0, p.books - 1);
  check_dtype(op, "row_index", row_index, ScalarType::Long);
  TX_CHECK(row_index.dim() == 1, op, "row_index must have one dimension, got ",
           shape_text(row_index));
  check_contiguous(op, "row_index", row_index);
  const auto* index = row_index.const_data_ptr<int64_t>();
  const int64_t count = row_index.numel();
  for (int64_t i = 0; i < count; ++i) check_range(op, "row_index", index[i], 0, rows - 1);
  Tensor out = torch::stable::new_empty(codes, {count, cols}, ScalarType::Float);
  float* to = out.mutable_data_ptr<float>();
  parallel_for(count, 64, [&](int64_t b, int64_t e) {
    cpu::sgd_decode(p, index + b, 0, e - b, static_cast<int>(draw), to + b * cols, cols);
  });
  return out;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_sgd_decode", TORCH_BOX(&torchext::ops::sgd_decode));
  m.impl("_sgd_epoch", TORCH_BOX(&torchext::ops::sgd_epoch));
}
