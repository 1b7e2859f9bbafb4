// Loads and stores of 8 and 16 bytes at a time.
#pragma once

#include <cstring>

#include "launch.h"

namespace torchext::cuda {

TX_DEVICE bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// Bytes that one instruction moves.
struct alignas(16) Vector16 {
  uint32_t w[4];
};

struct alignas(8) Vector8 {
  uint32_t w[2];
};

/// Copies kCount values between memory aligned to 16 bytes and registers.
template <int kCount, class T>
TX_DEVICE void load(const T* from, T* to) {
  static_assert(kCount * sizeof(T) % sizeof(Vector16) == 0);
  TX_UNROLL
  for (size_t k = 0; k < kCount * sizeof(T) / sizeof(Vector16); ++k) {
    const Vector16 v = reinterpret_cast<const Vector16*>(from)[k];
    std::memcpy(reinterpret_cast<unsigned char*>(to) + k * sizeof v, &v, sizeof v);
  }
}
template <int kCount, class T>
TX_DEVICE void store(const T* from, T* to) {
  static_assert(kCount * sizeof(T) % sizeof(Vector16) == 0);
  TX_UNROLL
  for (size_t k = 0; k < kCount * sizeof(T) / sizeof(Vector16); ++k) {
    Vector16 v;
    std::memcpy(&v, reinterpret_cast<const unsigned char*>(from) + k * sizeof v, sizeof v);
    reinterpret_cast<Vector16*>(to)[k] = v;
  }
}

}  // namespace torchext::cuda
