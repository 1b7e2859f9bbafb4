// Launch function of the error of rounding to given levels; needs no torch.
#pragma once

#include "formats.h"

namespace torchext::cuda {

constexpr int kErrorWords = 20;  // of workspace a group

/// Device memory throughout. Element i belongs to group (i / inner) % channels.
struct ErrorSumsParams {
  const void* x;
  FloatType x_type;
  const double* weight;  // like x; null: 1 each
  int64_t n;
  ChannelMap channels;
  const double* levels;               // ascending, the last distinct one may be repeated
  int64_t level_count, table_stride;  // stride 0: one table for all groups
  bool stochastic;
  int64_t* work;  // [groups, kErrorWords]
  double *variance, *bias2;
  int64_t* clipped;
};

/// The exact sums of csrc/kernels/levels, which have no order. A group with values, weights or
/// levels that the CPU refuses (not finite, negative weights, levels that do not ascend) has NaN,
/// NaN, -1.
cudaError_t launch_error_sums(const ErrorSumsParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
