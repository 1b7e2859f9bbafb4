// Steps of the integer inner loop on every instruction set, and the scalar changes of a slope.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/linear/inner_loop.h"
#include "kernels/linear/slope_change.h"

namespace torchext::cpu {
namespace {

class HalpStepTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    before_ = active_isa();
    if (!force_isa(GetParam())) GTEST_SKIP() << "the processor lacks " << isa_name(GetParam());
  }
  void TearDown() override { force_isa(before_); }

 private:
  Isa before_ = Isa::ref;
};

/// All columns alike: their order in the drift does not matter.
TEST_P(HalpStepTest, RoundsAndSaturatesAsSpecified) {
  struct Vector {
    int z, r, gamma, x, h, expected, clipped;
  };
  constexpr Vector kVectors[] = {{5, 200, -37, 91, 1203, 14, 0},
                                 {100, 255, -127, 127, -32767, 127, 1},
                                 {0, 0, 127, 127, 32767, -127, 1},
                                 {-3, 128, 0, 77, 100, -3, 0},
                                 {7, 10, 1, 11, 0, 6, 0}};
  constexpr int64_t n = 192;
  for (const Vector& v : kVectors) {
    const std::vector<int8_t> x(n, static_cast<int8_t>(v.x)), next(n, 3);
    std::vector<int8_t> z(n, static_cast<int8_t>(v.z));
    const std::vector<int16_t> drift(n, static_cast<int16_t>(v.h));
    const std::vector<uint32_t> noise(16, static_cast<uint32_t>(v.r) * 0x01010101u);
    HalpStep s{};
    s.x = x.data();
    s.next = next.data();
    for (const uint8_t*& stream : s.ahead.stream)
      stream = reinterpret_cast<const uint8_t*>(next.data());
    s.z = z.data();
    s.drift = drift.data();
    s.noise = noise.data();
    s.n = n;
    s.gamma = v.gamma;
    int64_t clips = 0;
    const int64_t dot = halp_kernels().step[static_cast<int>(HalpFormat::z8)](s, &clips);
    for (const int8_t moved : z) EXPECT_EQ(moved, v.expected);
    EXPECT_EQ(dot, 3 * n * v.expected);
    EXPECT_EQ(clips, v.clipped * n);
  }
}

/// The largest sums of all formats fit, also where a 32-bit lane takes most of them.
TEST_P(HalpStepTest, LongProductsAreExact) {
  constexpr int64_t n = int64_t{1} << 17;
  const std::vector<int8_t> x8(n, 127);
  const std::vector<int16_t> x16(n, 32767);
  const std::vector<int32_t> drift(n, 0);
  const std::vector<uint32_t> noise(32, 0);
  for (const HalpFormat format : {HalpFormat::z8, HalpFormat::z16, HalpFormat::x16}) {
    const HalpRanges r = halp_ranges(format);
    std::vector<int8_t> z8(n, 127);
    std::vector<int16_t> z16(n, 32767);
    HalpStep s{};
    s.x = s.next = format == HalpFormat::x16 ? static_cast<const void*>(x16.data()) : x8.data();
    for (const uint8_t*& stream : s.ahead.stream) stream = static_cast<const uint8_t*>(s.x);
    s.z = format == HalpFormat::z8 ? static_cast<void*>(z8.data()) : z16.data();
    s.drift = drift.data();
    s.noise = noise.data();
    s.n = n;
    int64_t clips = 0;
    EXPECT_EQ(halp_kernels().step[static_cast<int>(format)](s, &clips), n * int64_t{r.data} * r.z);
    EXPECT_EQ(clips, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, HalpStepTest, ::testing::Values(Isa::ref, Isa::avx2, Isa::avx512),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

TEST(SlopeChange, Logistic) {
  struct Value {
    float phi, s, expected;
  };
  for (const Value& v : {Value{0.0f, 1.0f, 2.3105858e-1f}, Value{2.0f, 1e-6f, 1.0499355e-7f},
                         Value{-3.0f, 0.25f, 1.2660777e-2f}, Value{20.0f, 1e-3f, 2.0601234e-12f},
                         Value{-30.0f, 20.0f, 4.5397868e-5f}}) {
    float cache[2];
    slope_cache(RowLoss::logistic, 1, &v.phi, 1, cache);
    EXPECT_NEAR(logistic_change(cache, v.s) / v.expected, 1.0, 5e-7) << v.phi << " " << v.s;
  }
}

TEST(SlopeChange, LogisticEnds) {
  const float far = 200.0f;  // sigmoid(-phi) is 0 in float32
  float cache[2];
  slope_cache(RowLoss::logistic, 1, &far, 1, cache);
  EXPECT_EQ(cache[0], 1.0f);
  EXPECT_EQ(logistic_change(cache, 5.0f), cache[1]);
  EXPECT_LE(logistic_change(cache, -1000.0f), 0.0f);
}

TEST(SlopeChange, ExponentialHasTwoUlps) {
  for (int i = -4000; i <= 400; ++i) {
    const float x = static_cast<float>(i) / 400.0f * (i % 7 == 0 ? 1e-3f : 1.0f);
    const double exact = std::expm1(static_cast<double>(x));
    EXPECT_NEAR(exponential(x).minus1, exact, 1.2e-7 * std::abs(exact)) << x;
    EXPECT_NEAR(exponential(x).whole, exact + 1.0, 1.2e-7 * (exact + 1.0)) << x;
  }
  EXPECT_EQ(exponential(-1e30f).minus1, -1.0f);
}

}  // namespace
}  // namespace torchext::cpu
