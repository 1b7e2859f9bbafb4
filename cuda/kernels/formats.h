// Types, channels and formats as the parameters of kernels hold them; what a launch function takes.
#pragma once

#include "kernels/quantize.h"
#include "launch.h"

namespace torchext::cuda {

/// Floats that the ops take; half precision and double are converted on the way.
enum class FloatType : int { f32, f64, bf16, f16 };

/// Elements of a warp's turn: a chunk of tree_sum, 8 rows of four a lane.
constexpr int kTile = 1024;

/// a / d for 0 <= a <= 1024, as a product: exact because 1024 / 2^21 < 1 / d. All quotients by a
/// larger d than 2048 are 0.
struct SmallDivisor {
  uint32_t factor;

  explicit SmallDivisor(int64_t d) {
    const int64_t small = d < 2 * kTile ? d : 2 * kTile;
    factor = (1u << 21) / static_cast<uint32_t>(small > 0 ? small : 1) + 1;
  }
  TX_DEVICE static int divide(uint32_t factor, int a) {
    return static_cast<int>(static_cast<uint32_t>(a) * factor >> 21);
  }
};

/// The channels of a tensor, part of a kernel's parameters.
struct ChannelMap {
  int64_t channels = 1, inner = 1;
  uint32_t per_run = 0, per_turn = 0;  // divide by inner and by channels

  ChannelMap() = default;
  ChannelMap(int64_t channel_count, int64_t run)
      : channels(channel_count),
        inner(run),
        per_run(SmallDivisor(run).factor),
        per_turn(SmallDivisor(channel_count).factor) {}
};

/// A format in device memory, as an op gets it.
struct DeviceFormat {
  Scheme scheme = Scheme::symmetric;
  int bits = 8;
  const float* scale = nullptr;   // [channels] or [channels, 2] of (lo, step); null: 1
  const float* levels = nullptr;  // ascending, the last distinct entry may be repeated
  int32_t level_count = 0;
  int64_t table_stride = 0;  // 0: one table for all channels
  ChannelMap channels;
};

}  // namespace torchext::cuda
