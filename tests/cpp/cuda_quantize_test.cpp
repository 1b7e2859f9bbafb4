// The CUDA quantizer in emulation: same bytes as the CPU reference.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/quantize.h"
#include "kernels/quantize_symmetric.h"

namespace torchext {
namespace {

const Key kKey{0x0123456789ABCDEFull, 0xFFFFFFFFull - 3};

std::vector<uint8_t> on_cuda(int bits, const float* x, int64_t n, float scale, Key key,
                             uint32_t stream) {
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(n, bits)));
  const uint64_t words[2] = {key.seed, key.offset};
  const cuda::QuantizeSymmetricParams p{x, codes.data(), &scale, words, n, stream};
  EXPECT_EQ(cuda::launch_quantize_symmetric(p, bits, nullptr), cudaSuccess);
  return codes;
}

std::vector<uint8_t> reference(int bits, const std::vector<float>& x, float scale,
                               uint32_t stream) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(n, bits)));
  const float inverse = inverse_step(scale), step = effective_step(scale);
  QuantizeParams p{};
  p.format = {Scheme::symmetric, bits, {&inverse, &step, nullptr, 1, n > 0 ? n : 1}, {}};
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

TEST(CudaQuantize, SameBytesAsTheCpuAtEveryWidth) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t n : {0, 1, 31, 32, 33, 64, 129, 9000}) {
      for (const float scale : {0.25f, 0.1f, 0.0f, 1e-40f}) {
        const std::vector<float> x = values(n);
        EXPECT_EQ(on_cuda(bits, x.data(), n, scale, kKey, 3), reference(bits, x, scale, 3))
            << bits << " bits, n = " << n << ", scale " << scale;
      }
    }
  }
}

TEST(CudaQuantize, UnalignedMemory) {
  std::vector<float> x = values(1001);
  const std::vector<float> shifted(x.begin() + 1, x.end());
  EXPECT_EQ(on_cuda(3, x.data() + 1, 1000, 0.1f, kKey, 3), reference(3, shifted, 0.1f, 3));
}

TEST(CudaQuantize, GoldenCodes) {
  const int golden[20] = {-7, 1, -5, 3, -3, 6, 0, -7, 2, -5, 4, -2, 7, 0, -7, 2, -4, 5, -1, 7};
  float x[20];
  for (int i = 0; i < 20; ++i) x[i] = static_cast<float>(37 * i % 64 - 32) / 16.0f;
  const std::vector<uint8_t> packed = on_cuda(4, x, 20, 0.25f, Key{kKey.seed, 0}, 3);
  uint8_t codes[20];
  unpack_unit(packed.data(), 20, 4, codes);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(codes[i] - 7, golden[i]) << i;
}

}  // namespace
}  // namespace torchext
