// The CUDA codec in emulation: same bytes as the CPU reference, golden codes, channels.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/bit_stream.h"
#include "kernels/quantize.h"
#include "kernels/quantizer.h"
#include "kernels/tiles.h"

namespace torchext {
namespace {

const Key kKey{0x0123456789ABCDEFull, 0xFFFFFFFFull - 3};

std::vector<uint8_t> on_cuda(const cuda::DeviceFormat& format, const float* x, int64_t n, Key key,
                             uint32_t stream) {
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(n, format.bits)));
  const uint64_t words[2] = {key.seed, key.offset};
  const cuda::QuantizerParams p{format, x,   cuda::FloatType::f32, codes.data(), nullptr, n, words,
                                stream, true};
  EXPECT_EQ(cuda::launch_quantize(p, nullptr), cudaSuccess);
  return codes;
}

cuda::DeviceFormat symmetric(int bits, const float* scale) {
  cuda::DeviceFormat f;
  f.bits = bits;
  f.scale = scale;
  return f;
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
        EXPECT_EQ(on_cuda(symmetric(bits, &scale), x.data(), n, kKey, 3),
                  reference(bits, x, scale, 3))
            << bits << " bits, n = " << n << ", scale " << scale;
      }
    }
  }
}

TEST(CudaQuantize, UnalignedMemory) {
  std::vector<float> x = values(1001);
  const std::vector<float> shifted(x.begin() + 1, x.end());
  const float scale = 0.1f;
  EXPECT_EQ(on_cuda(symmetric(3, &scale), x.data() + 1, 1000, kKey, 3),
            reference(3, shifted, scale, 3));
}

TEST(CudaQuantize, GoldenCodes) {
  const int golden[20] = {-7, 1, -5, 3, -3, 6, 0, -7, 2, -5, 4, -2, 7, 0, -7, 2, -4, 5, -1, 7};
  float x[20];
  for (int i = 0; i < 20; ++i) x[i] = static_cast<float>(37 * i % 64 - 32) / 16.0f;
  const float scale = 0.25f;
  const std::vector<uint8_t> packed = on_cuda(symmetric(4, &scale), x, 20, Key{kKey.seed, 0}, 3);
  uint8_t codes[20];
  unpack_unit(packed.data(), 20, 4, codes);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(codes[i] - 7, golden[i]) << i;
}

TEST(CudaQuantize, RefusesWidthsThatNoFormatHas) {
  const float scale = 1, x = 0;
  cuda::QuantizerParams p{};
  p.format = symmetric(9, &scale);
  p.x = &x;
  p.n = 1;
  EXPECT_EQ(cuda::launch_quantize(p, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(cuda::launch_dequantize(p, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(cuda::launch_pack({nullptr, nullptr, 1, 0}, nullptr), cudaErrorInvalidValue);
}

TEST(CudaChannels, QuotientsOfSmallNumbersAreExact) {
  for (int64_t d = 1; d < 2200; ++d) {
    const uint32_t factor = cuda::SmallDivisor(d).factor;
    for (int a = 0; a <= cuda::kTile; ++a)
      ASSERT_EQ(cuda::SmallDivisor::divide(factor, a), a / d) << a << " / " << d;
  }
}

TEST(CudaChannels, OfEveryElementOfATile) {
  for (const int64_t channels : {1, 2, 3, 7, 1000, 1024, 1025, 5000}) {
    for (const int64_t inner : {1, 3, 4, 8, 100, 1023, 1024, 1025, 100000}) {
      const cuda::ChannelMap map(channels, inner);
      for (const int64_t tile : {0, 1024, 7 * 1024, 1000 * 1024}) {
        const cuda::TileChannels of(map, tile);
        for (int j = 0; j < cuda::kTile; ++j)
          ASSERT_EQ(of.at(j), (tile + j) / inner % channels) << channels << " " << inner;
        EXPECT_TRUE(!of.single() || of.at(0) == of.at(cuda::kTile - 1));
      }
    }
  }
}

}  // namespace
}  // namespace torchext
