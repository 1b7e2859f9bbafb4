// Arguments of an SGD epoch, checked; CPU and CUDA ops share this.
#pragma once

#include "codes.h"

namespace torchext::ops {

inline const float* optional_floats(const char* op, const char* name,
                                    const std::optional<Tensor>& t,
                                    std::initializer_list<int64_t> shape) {
  if (!t.has_value()) return nullptr;
  check_dtype(op, name, *t, ScalarType::Float);
  check_shape(op, name, *t, shape);
  check_contiguous(op, name, *t);
  return t->const_data_ptr<float>();
}

/// Per-output terms may have one more column, the intercept's.
inline const float* optional_model(const char* op, const char* name, const std::optional<Tensor>& t,
                                   int64_t outputs, int64_t cols, int64_t* width) {
  if (!t.has_value()) return nullptr;
  *width = t->dim() == 2 && t->sizes()[1] == cols + 1 ? cols + 1 : cols;
  return optional_floats(op, name, t, {outputs, *width});
}

inline int read_bits(const char* op, const char* name, int64_t bits, int64_t none) {
  TX_CHECK(bits == none || (bits >= 2 && bits <= 8), op, name, " must be in [2, 8] or ", none,
           ", got ", bits);
  return static_cast<int>(bits);
}

inline float* model_floats(const char* op, const char* name, Tensor& t,
                           std::initializer_list<int64_t> shape) {
  check_dtype(op, name, t, ScalarType::Float);
  check_shape(op, name, t, shape);
  check_contiguous(op, name, t);
  return t.mutable_data_ptr<float>();
}

/// Everything but the values of `order` and `key`, which may be on a GPU; sums is left out.
inline cpu::Epoch read_epoch(const char* op, const Tensor& codes, int64_t rows, int64_t cols,
                             int64_t bits, const std::string& layout, const Tensor& grid,
                             const Tensor& table, const std::optional<Tensor>& y,
                             const std::optional<Tensor>& weight, const std::optional<Tensor>& z0,
                             Tensor& x, Tensor& intercept, const std::optional<Tensor>& x0,
                             const std::optional<Tensor>& constant,
                             const std::optional<Tensor>& shrink,
                             const std::optional<Tensor>& average, const Tensor& order,
                             const Tensor& gamma, int64_t batch, const std::string& loss, double l1,
                             double l2, bool variance_reduced, bool fit_intercept,
                             int64_t model_bits, int64_t residual_bits, int64_t gradient_bits,
                             const Tensor& key, int64_t first_step, int64_t threads) {
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
  check_key(op, key);
  p.first_step = static_cast<uint32_t>(check_range(op, "first_step", first_step, 0, 0xFFFFFFFFll));
  p.threads = static_cast<int>(check_range(op, "threads", threads, 1, 1024));
  return p;
}

}  // namespace torchext::ops
