// Launch function of the scales that cover the values of every channel; needs no torch.
#pragma once

#include "formats.h"

namespace torchext::cuda {

constexpr int kRangeWords = 3;  // of workspace a channel

/// Device memory throughout.
struct ChannelRangesParams {
  const void* x;
  FloatType x_type;
  int64_t n;
  ChannelMap channels;
  int64_t* work;  // [channels, kRangeWords]
  float* scale;   // [channels], affine: [channels, 2] of (lo, step)
  int bits;
  bool affine;
};

/// The smallest grid of every channel. What the CPU refuses, a channel with NaN or infinity or one
/// that float32 cannot span, has the scale NaN.
cudaError_t launch_channel_scales(const ChannelRangesParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
