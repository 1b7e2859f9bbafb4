// What rounding to tables of levels costs, as tensors on the device.
#pragma once

#include <vector>

#include "device_format.h"
#include "kernels/error_sums.h"
#include "ops/tables.h"

namespace torchext::ops {

/// Sums of every group, of the given shape.
struct LevelErrors {
  Tensor variance, bias2, clipped;

  /// Contiguous x and weight (null: 1 each); `levels` float64, `width` a group, or in all where
  /// they are shared.
  LevelErrors(const char* op, const Device& device, const Tensor& x, const double* weight,
              const Tables& tables, const std::vector<int64_t>& shape, const Tensor& levels,
              int64_t width, bool shared, bool stochastic)
      : variance(torch::stable::new_empty(x, shape, ScalarType::Double)),
        bias2(torch::stable::new_empty(x, shape, ScalarType::Double)),
        clipped(torch::stable::new_empty(x, shape, ScalarType::Long)) {
    const Tensor work =
        torch::stable::new_empty(x, {tables.count, cuda::kErrorWords}, ScalarType::Long);
    const cuda::ErrorSumsParams p{x.const_data_ptr(),
                                  float_type(x),
                                  weight,
                                  x.numel(),
                                  {tables.count, std::max<int64_t>(1, tables.inner)},
                                  levels.const_data_ptr<double>(),
                                  width,
                                  shared ? 0 : width,
                                  stochastic,
                                  work.mutable_data_ptr<int64_t>(),
                                  variance.mutable_data_ptr<double>(),
                                  bias2.mutable_data_ptr<double>(),
                                  clipped.mutable_data_ptr<int64_t>()};
    check_launch(op, cuda::launch_error_sums(p, device.stream()));
  }
};

}  // namespace torchext::ops
