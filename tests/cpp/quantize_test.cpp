#include "kernels/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/dispatch.h"

namespace torchext {
namespace {

constexpr Key kKey{0x0123456789ABCDEFull, 0};

std::vector<int> unpack(const std::vector<uint8_t>& packed, int64_t n, int bits) {
  std::vector<uint8_t> codes(static_cast<size_t>(n));
  cpu::quantize_ref.unpack(packed.data(), bits, codes.data(), 0, n);
  return {codes.begin(), codes.end()};
}

TEST(Quantize, GoldenStochasticCodes) {
  std::vector<float> x(20);
  for (int i = 0; i < 20; ++i)
    x[static_cast<size_t>(i)] = static_cast<float>((37 * i) % 64 - 32) / 16.0f;
  const float step = 0.25f, inverse = 4.0f;
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(20, 4)));
  QuantizeParams p{};
  p.format = {Scheme::symmetric, 4, {&inverse, &step, nullptr, 1, 20}, {}};
  p.x = x.data();
  p.codes = codes.data();
  p.n = 20;
  p.stochastic = true;
  p.key = kKey;
  p.stream = 3;
  EXPECT_FALSE(cpu::quantize_ref.quantize(p, 0, 20));
  const std::vector<int> want = {-7, 1,  -5, 3, -3, 6, 0,  -7, 2,  -5,
                                 4,  -2, 7,  0, -7, 2, -4, 5,  -1, 7};
  const std::vector<int> got = unpack(codes, 20, 4);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(got[i] - 7, want[i]) << i;
}

TEST(Pack, PublishedBytes) {
  const uint8_t codes[8] = {0, 31, 1, 2, 3, 4, 5, 30}, want[5] = {0xe0, 0x07, 0x31, 0x48, 0xf1};
  uint8_t packed[5];
  cpu::quantize_ref.pack(codes, 5, packed, 0, 8);
  EXPECT_EQ(std::memcmp(packed, want, 5), 0);
}

TEST(Round, EdgeCases) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  EXPECT_EQ(symmetric_stochastic(inf, 1.0f, 7, 0.5f), 14);
  EXPECT_EQ(symmetric_stochastic(-inf, 1.0f, 7, 0.5f), 0);
  EXPECT_EQ(symmetric_stochastic(nan, 1.0f, 7, 0.5f), 15);
  EXPECT_EQ(symmetric_stochastic(inf, inverse_step(1e-39f), 7, 0.5f),
            15);  // Inf over no spacing is NaN
  EXPECT_TRUE(std::isnan(decode_symmetric(15, 1.0f, 7)));
  EXPECT_FALSE(std::signbit(decode_symmetric(0, 0.0f, 7)));
  EXPECT_EQ(symmetric_nearest(2.5f, 1.0f, 7) - 7, 2);
  EXPECT_EQ(symmetric_nearest(-0.5f, 1.0f, 7) - 7, 0);
  EXPECT_EQ(symmetric_stochastic(-1e-30f, 1.0f, 7, 0.9999999f) - 7,
            0);  // the fraction rounds to 1: always up
  EXPECT_EQ(affine_stochastic(nan, 0.0f, 1.0f, 15, 0.5f), -1);
  const float levels[5] = {-1.0f, 0.0f, 0.5f, 2.0f, 2.0f};
  EXPECT_EQ(level_nearest(0.25f, levels, 3), 1);  // a tie goes down
  EXPECT_EQ(level_nearest(9.0f, levels, 3), 3);
  EXPECT_EQ(level_stochastic(-9.0f, levels, 3, 0.0f), 0);
  EXPECT_EQ(level_stochastic(0.5f, levels, 3, 0.0f), 2);  // a value on a level never moves
  EXPECT_EQ(level_stochastic(3.0f, levels, 0, 0.0f), 0);
}

class Parity : public testing::TestWithParam<int> {};

TEST_P(Parity, VectorKernelsEqualTheReference) {
  const auto isa = static_cast<cpu::Isa>(GetParam());
  if (isa > cpu::best_isa()) GTEST_SKIP() << "this processor lacks " << cpu::isa_name(isa);
  const cpu::Isa before = cpu::active_isa();
  cpu::force_isa(isa);
  const cpu::QuantizeKernels& tested = cpu::quantize_kernels();
  cpu::force_isa(before);
  const cpu::QuantizeKernels& ref = cpu::quantize_ref;
  const float specials[] = {-0.0f, 1e-40f, -1e-40f, INFINITY, -INFINITY, NAN, 1e30f, 8388608.5f};
  std::vector<float> memory(1 + 3 * 129);
  for (size_t i = 0; i < memory.size(); ++i) {
    memory[i] = i % 11 == 7 ? specials[i / 11 % 8]
                            : static_cast<float>(static_cast<int>(i * 7919 % 4001) - 2000) / 700.0f;
  }
  float table[256];
  for (int i = 0; i < 256; ++i)
    table[i] = -2.5f + 0.001f * static_cast<float>(i * i % 97) + 0.02f * static_cast<float>(i);
  for (int scheme = 0; scheme < 3; ++scheme) {
    for (int bits = scheme == 0 ? 2 : 1; bits <= 8; ++bits) {
      for (int channels : {1, 3}) {
        for (int64_t n = 0; n <= 129; ++n) {
          float inverse[3], step[3], lo[3];
          for (int c = 0; c < 3; ++c) {
            step[c] = scheme == 2            ? 1.0f + static_cast<float>(c)
                      : c == 1 && n % 5 == 0 ? 0.0f
                                             : 5.0f / static_cast<float>(1 << bits);
            inverse[c] = inverse_step(step[c]);
            lo[c] = -2.6f + 0.1f * static_cast<float>(c);
          }
          const int32_t count = 1 << bits,
                        last = n % 7 == 0 ? 0 : count - 1 - static_cast<int>(n % 2);
          std::vector<float> levels(table, table + count);
          for (int32_t i = last + 1; i < count; ++i)
            levels[static_cast<size_t>(i)] = levels[static_cast<size_t>(last)];
          QuantizeParams p{};
          p.format = {static_cast<Scheme>(scheme),
                      bits,
                      {inverse, step, scheme == 1 ? lo : nullptr, channels, channels == 1 ? n : 5},
                      {levels.data(), &last, count, 0}};
          p.x = memory.data() + 1;
          p.n = n;
          p.key = {kKey.seed, 0xFFFFFFFAull};  // the block counter carries into its upper half
          p.stream = 9;
          for (const bool stochastic : {false, true}) {
            p.stochastic = stochastic;
            std::vector<uint8_t> codes[2];
            std::vector<float> y[2], trip[2];
            bool nan[2];
            for (int k = 0; k < 2; ++k) {
              const cpu::QuantizeKernels& kernels = k ? tested : ref;
              codes[k].assign(static_cast<size_t>(packed_bytes(n, bits)) + 1, 0xA5);
              y[k].assign(static_cast<size_t>(n) + 1, 7.0f);
              trip[k] = y[k];
              p.codes = codes[k].data();
              nan[k] = kernels.quantize(p, 0, n);
              p.y = y[k].data();
              kernels.dequantize(p, 0, n);
              p.y = trip[k].data();
              kernels.round_trip(p, 0, n);
            }
            const auto bytes = y[0].size() * sizeof(float);
            ASSERT_EQ(nan[0], nan[1]);
            ASSERT_EQ(codes[0], codes[1]) << "scheme " << scheme << " bits " << bits << " n " << n;
            ASSERT_EQ(std::memcmp(y[0].data(), y[1].data(), bytes), 0)
                << scheme << " " << bits << " " << n;
            ASSERT_EQ(std::memcmp(trip[0].data(), trip[1].data(), bytes), 0)
                << scheme << " " << bits << " " << n;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, Parity, testing::Values(0, 1, 2), [](const auto& info) {
  return cpu::isa_name(static_cast<cpu::Isa>(info.param));
});

}  // namespace
}  // namespace torchext
