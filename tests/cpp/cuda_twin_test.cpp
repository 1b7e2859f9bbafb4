// The CUDA quantizer's device functions, compiled for the host: same bytes as the CPU reference.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "../../cuda/kernels/quantize_symmetric.cuh"
#include "kernels/quantize.h"

namespace torchext {
namespace {

const Key kKey{0x0123456789ABCDEFull, 0xFFFFFFFFull - 3};

// What a grid of threads does, one unit after the other.
template <int kBits>
std::vector<uint8_t> twin(const std::vector<float>& x, float scale, uint32_t stream) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(n, kBits)));
  const float inverse = inverse_step(scale);
  for (int64_t first = 0; first < n; first += 32) {
    uint8_t* out = codes.data() + first / 32 * 4 * kBits;
    const auto block = static_cast<uint64_t>(first / 4);
    if (n - first >= 32) {
      uint32_t words[kBits];
      cuda::quantize_symmetric_unit<kBits>(x.data() + first, inverse, kKey, block, stream, words);
      std::memcpy(out, words, sizeof words);
    } else {
      cuda::quantize_symmetric_tail<kBits>(x.data() + first, static_cast<int>(n - first), inverse,
                                           kKey, block, stream, out);
    }
  }
  return codes;
}

template <int kBits>
std::vector<uint8_t> reference(const std::vector<float>& x, float scale, uint32_t stream) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(n, kBits)));
  const float inverse = inverse_step(scale), step = effective_step(scale);
  QuantizeParams p{};
  p.format = {Scheme::symmetric, kBits, {&inverse, &step, nullptr, 1, n > 0 ? n : 1}, {}};
  p.x = x.data();
  p.codes = codes.data();
  p.n = n;
  p.stochastic = true;
  p.key = kKey;
  p.stream = stream;
  cpu::quantize_ref.quantize(p, 0, n);
  return codes;
}

std::vector<float> values(int64_t n) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    x[static_cast<size_t>(i)] = static_cast<float>(37 * i % 64 - 32) / 13.0f;
  if (n > 12)
    x[3] = std::nanf(""), x[5] = inf, x[6] = -inf, x[7] = -0.0f, x[9] = 1e-42f, x[11] = 3e38f;
  return x;
}

template <int kBits>
void expect_same() {
  for (int64_t n = 0; n <= 129; ++n) {
    for (const float scale : {0.25f, 0.1f, 0.0f, 1e-40f}) {
      EXPECT_EQ(twin<kBits>(values(n), scale, 3), reference<kBits>(values(n), scale, 3))
          << kBits << " bits, n = " << n << ", scale " << scale;
    }
  }
}

TEST(CudaTwin, SameBytesAsTheCpuAtEveryWidth) {
  expect_same<2>();
  expect_same<3>();
  expect_same<4>();
  expect_same<5>();
  expect_same<6>();
  expect_same<7>();
  expect_same<8>();
}

TEST(CudaTwin, GoldenCodes) {
  const int golden[20] = {-7, 1, -5, 3, -3, 6, 0, -7, 2, -5, 4, -2, 7, 0, -7, 2, -4, 5, -1, 7};
  float x[20];
  for (int i = 0; i < 20; ++i) x[i] = static_cast<float>(37 * i % 64 - 32) / 16.0f;
  uint8_t packed[10], codes[20];
  cuda::quantize_symmetric_tail<4>(x, 20, 4.0f, Key{kKey.seed, 0}, 0, 3, packed);
  unpack_unit(packed, 20, 4, codes);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(codes[i] - 7, golden[i]) << i;
}

}  // namespace
}  // namespace torchext
