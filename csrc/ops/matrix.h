// Arguments that the ops over data sets share: a matrix of rows, and arrays of a known shape.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "stable.h"

namespace torchext::ops {

/// A float32 or float64 matrix whose rows are contiguous; anything else is copied once.
struct Matrix {
  Tensor keep;
  const void* data;
  bool f64;
  int64_t rows, cols, row_stride;
};

inline Matrix read_matrix(const char* op, const Tensor& x) {
  const bool f64 = x.scalar_type() == ScalarType::Double;
  TX_CHECK(f64 || x.scalar_type() == ScalarType::Float, op, "x must be float32 or float64, got ",
           dtype_name(x.scalar_type()));
  TX_CHECK(x.dim() == 2, op, "x must have shape (rows, columns), got ", shape_text(x));
  const bool rows_whole = x.size(1) <= 1 || x.stride(1) == 1;
  Tensor keep = rows_whole ? x : torch::stable::contiguous(x);
  const void* data = keep.const_data_ptr();
  const int64_t rows = keep.size(0), cols = keep.size(1), stride = keep.stride(0);
  return {std::move(keep), data, f64, rows, cols, stride};
}

template <class T>
const T* read_array(const char* op, const char* name, const Tensor& t, ScalarType type,
                    std::initializer_list<int64_t> shape) {
  check_dtype(op, name, t, type);
  check_shape(op, name, t, shape);
  check_contiguous(op, name, t);
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T>
T* write_array(const char* op, const char* name, const Tensor& t, ScalarType type,
               std::initializer_list<int64_t> shape) {
  return const_cast<T*>(read_array<T>(op, name, t, type, shape));
}

/// Row numbers below `limit`.
inline const int64_t* read_rows(const char* op, const Tensor& rows, int64_t limit) {
  const int64_t count = rows.numel();
  const auto* index = read_array<int64_t>(op, "rows", rows, ScalarType::Long, {count});
  for (int64_t i = 0; i < count; ++i) check_range(op, "rows", index[i], 0, limit - 1);
  return index;
}

/// Rows of `t`, one an output, each of `cols` adjacent elements.
inline int check_outputs(const char* op, const char* name, const Tensor& t, int64_t cols) {
  TX_CHECK(t.dim() == 2 && t.size(0) >= 1 && t.size(1) == cols, op, name,
           " must have shape (outputs, ", cols, "), got ", shape_text(t));
  check_contiguous(op, name, t);
  return static_cast<int>(check_range(op, "outputs", t.size(0), 1, 65536));
}

}  // namespace torchext::ops
