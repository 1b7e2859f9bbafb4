#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/column_levels.h"
#include "kernels/column_stats.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/encode_plan.h"
#include "kernels/layout.h"

namespace torchext::cpu {
namespace {

std::vector<Isa> isas() {
  std::vector<Isa> found;
  for (const Isa isa : {Isa::ref, Isa::avx2, Isa::avx512}) {
    if (isa <= best_isa()) found.push_back(isa);
  }
  return found;
}

/// Restores the instruction set a test has switched.
class Encode : public ::testing::Test {
 protected:
  void TearDown() override { force_isa(best_isa()); }
};

struct Result {
  std::vector<uint8_t> codes;
  std::vector<double> sums;
  std::vector<int64_t> clipped;
};

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

Result encode_all(const EncodeOptions& options, const std::vector<float>& x, int64_t rows,
                  const float* y) {
  EncodeSetup setup;
  encode_setup(options, &setup);
  Result r;
  r.codes.resize(
      static_cast<size_t>(layout_bytes({Layout::tile4, options.bits, rows, options.cols})));
  r.sums.resize(static_cast<size_t>(encode_sums_size(setup.plan)));
  r.clipped.resize(static_cast<size_t>(options.cols));
  std::vector<double> scratch(static_cast<size_t>(encode_scratch_size(setup.plan)));
  const EncodeRows all{x.data(), false, options.cols, 0, rows, nullptr, y, nullptr, r.codes.data()};
  encode_chunk(setup, all, 0, scratch.data(), r.sums.data(), r.clipped.data());
  return r;
}

std::vector<uint8_t> unpacked(const Result& r, int64_t rows, const EncodeOptions& o) {
  std::vector<uint8_t> codes(static_cast<size_t>(rows * o.cols));
  unpack_codes_ref(Layout::tile4, r.codes.data(), rows, o.cols, o.bits, codes.data(), 0,
                   (rows + 63) / 64);
  return codes;
}

// The four rows worked out by hand: levels -1, -1/3, 1/3, 1 in both columns, x0 = (1, -1/2).
TEST_F(Encode, TinySet) {
  const std::vector<float> x = {0.5f, -1, -0.5f, 0.25f, 1, 0, -1, 0.75f};
  const float y[] = {1, -1, 2, -2}, third = 1.0f / 3.0f, x0[] = {1, -0.5f};
  const float levels[] = {-1, -third, third, 1, -1, -third, third, 1}, grid[4] = {};
  const double zero[] = {0, 0}, one[] = {1, 1};
  EncodeOptions o;
  o.cols = 2;
  o.bits = 2;
  o.count = 4;
  o.mean = zero;
  o.scale = one;
  o.grid = grid;
  o.levels = levels;
  o.outputs = 1;
  o.x0 = x0;
  for (const Isa isa : isas()) {
    ASSERT_TRUE(force_isa(isa));
    const Result r = encode_all(o, x, 4, y);
    EXPECT_EQ(unpacked(r, 4, o),
              (std::vector<uint8_t>{2, 0, 1, 2, 3, 1, 0, 3}));  // 0 is a tie: lower level
    const auto at = [&](int64_t row, int64_t col) {
      return r.sums[static_cast<size_t>(2 * row + col)] / 4;
    };
    EXPECT_NEAR(at(kSquaredError, 0), 1.0 / 72, 1e-7);
    EXPECT_NEAR(at(kSquaredError, 1), 13.0 / 288, 1e-7);
    EXPECT_NEAR(at(kMoments + kErrorTarget, 0), -1.0 / 12, 1e-7);
    EXPECT_NEAR(at(kMoments + kErrorTarget, 1), -5.0 / 16, 1e-7);
    const auto h = [&](int64_t col) {
      return at(kMoments + kExactGradient, col) - at(kMoments + kDecodedGradient, col);
    };
    EXPECT_NEAR(h(0), -37.0 / 576, 1e-7);
    EXPECT_NEAR(h(1), -79.0 / 576, 1e-7);
  }
}

/// Whether every instruction set equals the definition on kCols columns, all modes and widths.
template <int64_t kCols>
void expect_same_bits(bool anchor) {
  constexpr int64_t kRows = 150;
  std::vector<float> x(kRows * kCols), y(kRows), x0(kCols, 0.25f), grid(2 * kCols);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 1009) / 504.0f - 1.0f;
  for (size_t i = 0; i < y.size(); ++i) y[i] = i % 3 == 0 ? 1.0f : -1.0f;
  const std::vector<double> mean(kCols, 0.001), scale(kCols, 1.1);
  const std::vector<float> bounds = [] {
    std::vector<float> b(2 * kCols);
    for (size_t i = 0; i < b.size(); ++i) b[i] = i % 2 == 0 ? -0.5f : 0.5f;
    return b;
  }();
  for (const EncodeMode mode : {EncodeMode::nearest, EncodeMode::stochastic, EncodeMode::twice}) {
    for (const int bits : {2, 3, 4, 5, 6, 7, 8, 16}) {
      EncodeOptions o;
      o.cols = kCols;
      o.bits = bits;
      o.mode = mode;
      o.key = Key{0x0123456789ABCDEFull, 5};
      o.count = encode_level_count(mode, bits);
      for (size_t j = 0; j < kCols; ++j) {
        grid[2 * j] = -1.0f;
        grid[2 * j + 1] =
            j == 3 ? 0.0f : 2.0f / static_cast<float>(o.count - 1);  // column 3 is constant
      }
      o.mean = mean.data();
      o.scale = scale.data();
      o.grid = grid.data();
      o.bounds = bounds.data();
      o.outputs = 1;
      if (anchor) o.x0 = x0.data();
      o.loss = AnchorLoss::log_loss;
      ASSERT_TRUE(force_isa(Isa::ref));
      const Result want = encode_all(o, x, kRows, y.data());
      for (const Isa isa : isas()) {
        ASSERT_TRUE(force_isa(isa));
        const Result got = encode_all(o, x, kRows, y.data());
        EXPECT_EQ(got.codes, want.codes) << isa_name(isa) << " bits " << bits;
        EXPECT_TRUE(same_bits(got.sums, want.sums)) << isa_name(isa) << " bits " << bits;
        EXPECT_EQ(got.clipped, want.clipped) << isa_name(isa);
      }
    }
  }
}

TEST_F(Encode, EveryIsaGivesTheSameBits) {
  for (const bool anchor : {true, false}) {
    expect_same_bits<19>(anchor);
    expect_same_bits<531>(anchor);  // three panels, the last one short
  }
}

TEST_F(Encode, NeighbouringFloatsAsLevels) {
  // The middle of two adjacent floats rounds onto one of them; a value on a level must keep its
  // code.
  const float a = 1.0f, b = std::nextafter(a, 2.0f), c = std::nextafter(b, 2.0f);
  const float levels[] = {a, b, c, c}, grid[2] = {};
  const double zero = 0, one = 1;
  EncodeOptions o;
  o.cols = 1;
  o.bits = 2;
  o.count = 4;
  o.mean = &zero;
  o.scale = &one;
  o.grid = grid;
  o.levels = levels;
  for (const Isa isa : isas()) {
    ASSERT_TRUE(force_isa(isa));
    EXPECT_EQ(unpacked(encode_all(o, {a, b, c, 0.0f, 2.0f}, 5, nullptr), 5, o),
              (std::vector<uint8_t>{0, 1, 2, 0, 2}));
  }
}

TEST(Layout, WordsEqualFields) {
  for (const int bits : {1, 2, 3, 4, 5, 6, 7, 8}) {
    constexpr int64_t kRows = 70, kCols = 6;
    std::vector<uint8_t> codes(kRows * kCols), back(codes.size());
    for (size_t i = 0; i < codes.size(); ++i)
      codes[i] = static_cast<uint8_t>((i * 37) & ((1u << bits) - 1));
    std::vector<uint8_t> one(static_cast<size_t>(layout_bytes({Layout::tile4, bits, kRows, kCols})),
                             0xFF),
        two = one;
    pack_codes_ref(Layout::tile4, codes.data(), kRows, kCols, bits, one.data(), 0, 2);
    pack_tile4(codes.data(), kRows, kCols, bits, two.data(), 0, 2);
    EXPECT_EQ(one, two) << bits;
    unpack_tile4(one.data(), kRows, kCols, bits, back.data(), 0, 2);
    EXPECT_EQ(back, codes) << bits;
  }
}

TEST_F(Encode, StatisticsFindNonFiniteSums) {
  std::vector<float> x(1024 * 5, 1.0f);
  x[1000 * 5 + 3] = std::numeric_limits<float>::infinity();
  for (const Isa isa : isas()) {
    ASSERT_TRUE(force_isa(isa));
    std::vector<double> sum(5, 0.0), lo(5, 1e300), hi(5, -1e300);
    column_stats_kernel()(ColumnBlock{x.data(), false, 5}, 0, 1024, 0, 5, sum.data(), lo.data(),
                          hi.data());
    EXPECT_EQ(sum[0], 1024.0);
    EXPECT_EQ(lo[1], 1.0);
    EXPECT_FALSE(std::isfinite(sum[3]));
  }
}

TEST_F(Encode, LloydOfTwoClusters) {
  std::vector<float> x(1000);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = (i % 2 == 0 ? -0.5f : 0.75f) + static_cast<float>(i % 10) * 0.001f;
  const double zero = 0, one = 1;
  const float bounds[] = {-0.5f, 0.759f};
  for (const Isa isa : isas()) {
    ASSERT_TRUE(force_isa(isa));
    LevelScratch scratch;
    float level[2];
    LevelCost cost{};
    const std::vector<ColumnLevels> kinds{ColumnLevels::lloyd};
    const LevelSearch search{2, kinds, 60, bounds, 1, level, &cost};
    column_levels(Sample{x.data(), false, 1, nullptr, 1000}, {0, 1}, &zero, &one, search, &scratch);
    EXPECT_NEAR(level[0], -0.496f, 1e-6f);
    EXPECT_NEAR(level[1], 0.755f, 1e-6f);
    EXPECT_NEAR(cost.mean, 8e-6, cost.bound);
    EXPECT_LT(cost.bound, 1e-6);
  }
}

/// A bin's sum of offsets stays below its count, however many rows are the same value.
TEST_F(Encode, HistogramOfManyEqualRows) {
  const float x = 0, bounds[] = {-1.7f, 1.9f};  // wide bins, whose offsets are large
  const double zero = 0, one = 1;
  const Sample sample{&x, false, 0, nullptr, int64_t{1} << 23};
  for (const Isa isa : isas()) {
    ASSERT_TRUE(force_isa(isa));
    LevelScratch scratch;
    HistogramMap maps[kStripMaps];
    const int64_t bins = histogram_bins(16);
    place_bins(sample, {0, 1}, &zero, &one, bounds, bins, &scratch, maps);
    std::vector<int64_t> count(bins, 0), sum(bins, 0);
    count_rows(sample, {0, 1}, maps, &scratch, count.data(), sum.data());
    const auto most = std::max_element(count.begin(), count.end());
    EXPECT_EQ(*most, sample.rows);
    EXPECT_GE(sum[most - count.begin()], int64_t{1} << 40);  // the case is as bad as it is meant
    EXPECT_EQ(sum[most - count.begin()] % sample.rows, 0);
  }
}

}  // namespace
}  // namespace torchext::cpu
