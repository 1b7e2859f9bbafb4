// Arguments of _column_stats, read and checked for the CPU and the CUDA op alike.
#pragma once

#include "matrix.h"

namespace torchext::ops {

/// Rows of `state`: count, sum, minimum, maximum and weighted sum of every column so far.
constexpr int64_t kStatsRows = 5;

struct ColumnStatsArguments {
  Matrix x;
  const float* weight;  // [rows] or null
  double* state;        // [kStatsRows, cols]
};

inline ColumnStatsArguments read_column_stats(const char* op, const Tensor& x,
                                              const std::optional<Tensor>& weight,
                                              const Tensor& state) {
  ColumnStatsArguments in{read_matrix(op, x), nullptr, nullptr};
  if (weight.has_value())
    in.weight = read_array<float>(op, "weight", *weight, ScalarType::Float, {in.x.rows});
  in.state = write_array<double>(op, "state", state, ScalarType::Double, {kStatsRows, in.x.cols});
  return in;
}

}  // namespace torchext::ops
