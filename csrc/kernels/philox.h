// Keyed randomness, stream v1: Philox4x32-10 as a pure function of (key, element, stream, draw).
//
// Every random decision of the library comes from here, so that the same key gives the same bits on
// every instruction set, on CUDA and for any number of threads. docs/reproducibility.md is the
// contract; tests/vectors/stream_v1.json pins it. Any change is a major version.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define TX_HD __host__ __device__ __forceinline__
#define TX_HD_MEMBER __host__ __device__
#else
#define TX_HD static inline
#define TX_HD_MEMBER
#endif

namespace torchext {

constexpr int kStreamVersion = 1;

/// A key names a random stream: `offset` counts 128-bit blocks (4 words).
struct Key {
  uint64_t seed;
  uint64_t offset;
};

/// One Philox block: the words of four consecutive elements.
struct Words {
  uint32_t w[4];
};

/// What a derived key is for. Folding the purpose in first keeps the uses of one user key
/// independent.
enum class Purpose : uint32_t {
  kWeight = 1,   // storing parameters or state
  kComm = 2,     // gradients before a reduction
  kGrad = 3,     // gradients after a reduction
  kData = 4,     // samples (double sampling)
  kModel = 5,    // the model as it is read
  kAct = 6,      // activations and residuals
  kSampler = 7,  // which example is drawn
  kTest = 8,
};

TX_HD Words philox4x32_10(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0,
                          uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Words{{c0, c1, c2, c3}};
}

/// Words of the elements 4*block .. 4*block+3; `draw` numbers independent draws of one element.
TX_HD Words draw4(Key key, uint64_t block, uint32_t stream, uint32_t draw) {
  const uint64_t c = key.offset + block;
  return philox4x32_10(static_cast<uint32_t>(c), static_cast<uint32_t>(c >> 32), stream, draw,
                       static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
}

/// The word of one element; loops over many elements use draw4 or its vector forms.
TX_HD uint32_t draw1(Key key, uint64_t element, uint32_t stream, uint32_t draw) {
  return draw4(key, element / 4, stream, draw).w[element % 4];
}

/// Uniform in [0, 1 - 2^-24], exact in float32.
TX_HD float unit(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

/// Child key; draw number 2^32-1 is reserved for this, so children never reuse the parent's words.
TX_HD Key fold_in(Key key, uint32_t data) {
  const Words r = philox4x32_10(
      static_cast<uint32_t>(key.offset), static_cast<uint32_t>(key.offset >> 32), data, 0xFFFFFFFFu,
      static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
  return Key{uint64_t{r.w[0]} | uint64_t{r.w[1]} << 32, 0};
}

TX_HD Key fold_in(Key key, Purpose purpose) { return fold_in(key, static_cast<uint32_t>(purpose)); }

}  // namespace torchext
