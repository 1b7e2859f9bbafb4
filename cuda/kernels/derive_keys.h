// Launch functions of key derivation and raw random words; needs no torch.
#pragma once

#include <cstdint>

#include "launch.h"

namespace torchext::cuda {

/// All pointers are device memory; key is seed, offset.
struct DeriveKeysParams {
  const uint64_t* key;
  const int64_t* data;  // null, or what is folded in (its low 32 bits) instead of `first`
  uint32_t first;
  int64_t* out;  // [n, 2]
  int64_t n;
};

/// out[j] = fold_in(key, first + j).
cudaError_t launch_derive_keys(const DeriveKeysParams& p, cudaStream_t stream) noexcept;

struct RandomWordsParams {
  const uint64_t* key;
  int64_t* out;  // [4 * blocks]
  int64_t blocks;
  uint32_t stream, draw;
};

/// The Philox words of elements 0 .. 4 * blocks - 1.
cudaError_t launch_random_words(const RandomWordsParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
