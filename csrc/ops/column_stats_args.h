// Arguments of _column_stats, read and checked for the CPU and the CUDA op alike.
#pragma once

#include "kernels/column_stats.h"
#include "matrix.h"

namespace torchext::ops {

/// Rows of `state`: count, sum, minimum, maximum and weighted sum of every column.
constexpr int64_t kStatsRows = 5;

struct ColumnStatsArguments {
  Matrix x;
  cpu::Weighing weighing;
  double* state;  // [kStatsRows, cols]
};

inline ColumnStatsArguments read_column_stats(const char* op, const Tensor& x,
                                              const std::optional<Tensor>& weight,
                                              const std::optional<Tensor>& centre,
                                              const Tensor& state) {
  ColumnStatsArguments in{read_matrix(op, x), {}, nullptr};
  if (weight.has_value())
    in.weighing.weight = read_array<double>(op, "weight", *weight, ScalarType::Double, {in.x.rows});
  if (centre.has_value())
    in.weighing.centre = read_array<double>(op, "centre", *centre, ScalarType::Double, {in.x.cols});
  in.state = write_array<double>(op, "state", state, ScalarType::Double, {kStatsRows, in.x.cols});
  return in;
}

}  // namespace torchext::ops
