#include "kernels/levels/rounding_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/levels/candidates.h"
#include "kernels/levels/stored.h"

namespace torchext::levels {
namespace {

using Values = std::vector<double>;

/// Magnitudes from 2^-low to 2^high.
Values spread(size_t n, int low, int high, std::mt19937_64* g) {
  std::uniform_real_distribution<double> exponent(low, high);
  Values x(n);
  for (double& v : x) v = std::exp2(exponent(*g)) * ((*g)() % 2 == 0 ? 1 : -1);
  return x;
}

TEST(RoundingError, EverySplitOrderAndInstructionSetGivesTheSameBits) {
  std::mt19937_64 g(1);
  const cpu::Isa before = cpu::active_isa();
  for (const auto& [low, high] : {std::pair{-3, 3}, std::pair{-140, 120}, std::pair{-299, 299}}) {
    for (const size_t n : {0, 1, 7, 8, 9, 1023, 1024, 1025, 5000}) {
      Values x = spread(n, low, high, &g), w = spread(n, -200, 0, &g);
      for (double& v : w) v = std::fabs(v);
      Values levels = spread(1 + g() % 40, low, high, &g);
      std::sort(levels.begin(), levels.end());
      levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
      for (const double* weight :
           {static_cast<const double*>(nullptr), static_cast<const double*>(w.data())}) {
        const auto size = static_cast<int64_t>(n);
        const ErrorMeter meter(x.data(), weight, size, levels.data(),
                               static_cast<int64_t>(levels.size()));
        for (const bool stochastic : {true, false}) {
          cpu::force_isa(cpu::Isa::ref);
          const RoundingError want = meter.measure(stochastic);
          for (int isa = 0; isa <= static_cast<int>(cpu::best_isa()); ++isa) {
            cpu::force_isa(static_cast<cpu::Isa>(isa));
            Errors parts[2], all;
            for (int64_t at = 0; at < size;) {
              const int64_t step =
                  std::min<int64_t>(size - at, 1 + static_cast<int64_t>(g() % 3000));
              meter.add(stochastic, at, at + step, &parts[g() % 2]);
              at += step;
            }
            for (const Errors& p : parts) ErrorMeter::merge(p, &all);
            const RoundingError got = meter.result(all);
            EXPECT_EQ(got.variance, want.variance) << n << " isa " << isa;
            EXPECT_EQ(got.bias2, want.bias2) << n << " isa " << isa;
            EXPECT_EQ(got.clipped, want.clipped) << n << " isa " << isa;
          }
          long double variance = 0, bias2 = 0;  // the definition
          for (size_t i = 0; i < n; ++i) {
            const long double wi = weight != nullptr ? weight[i] : 1.0, v = x[i];
            const size_t up = static_cast<size_t>(
                std::upper_bound(levels.begin(), levels.end(), x[i]) - levels.begin());
            const long double a = v - levels[up > 0 ? up - 1 : 0],
                              b = levels[std::min(up, levels.size() - 1)] - v;
            const bool outside = x[i] < levels.front() || x[i] > levels.back();
            const long double d = std::min(std::fabs(a), std::fabs(b));
            if (stochastic && !outside) {
              variance += wi * a * b;
            } else {
              bias2 += wi * d * d;
            }
          }
          EXPECT_NEAR(want.variance, static_cast<double>(variance),
                      1e-14 * static_cast<double>(variance));
          EXPECT_NEAR(want.bias2, static_cast<double>(bias2), 1e-14 * static_cast<double>(bias2));
        }
      }
    }
  }
  cpu::force_isa(before);
}

TEST(ExactSum, LosesNothingThatADoubleCouldShow) {
  std::mt19937_64 g(2);
  for (int round = 0; round < 200; ++round) {
    ExactSum sum, reversed;
    long double want = 0;
    Values terms = spread(1 + g() % 500, -80, 80, &g);
    for (double& t : terms) t = std::fabs(t);
    for (const double t : terms) add_term(&sum, t);
    for (size_t i = terms.size(); i-- > 0;) add_term(&reversed, terms[i]);
    std::sort(terms.begin(), terms.end());
    for (const double t : terms) want += t;
    EXPECT_EQ(sum.top, reversed.top);
    for (int k = sum.top; k > sum.top - 3; --k)
      EXPECT_TRUE(sum.slice[k - kLowestSlice] == reversed.slice[k - kLowestSlice]);
    long double got = 0;
    for (int k = sum.top - 2; k <= sum.top; ++k)
      got += static_cast<long double>(sum.slice[k - kLowestSlice]) * power_of_two(kSliceBits * k);
    EXPECT_NEAR(static_cast<double>(got / want), 1, 1e-18);
  }
}

TEST(StoredLevels, AreTheNearestOfTheirFormat) {
  std::mt19937_64 g(3);
  const StoredFormat formats[] = {kFloat16, kBFloat16, kFloat32};
  for (int round = 0; round < 300; ++round) {
    const StoredFormat& f = formats[round % 3];
    Values levels = spread(1 + g() % 9, round % 2 == 0 ? -3 : f.smallest - f.bits, 3, &g);
    std::sort(levels.begin(), levels.end());
    const Values exact = levels;
    const bool outward = round % 4 < 2;
    bool changed;
    ASSERT_TRUE(store_levels(f, outward, 9, &levels, &changed));
    EXPECT_TRUE(!outward || (levels.front() <= exact.front() && levels.back() >= exact.back()));
    for (size_t i = 0; i < levels.size(); ++i) {
      EXPECT_TRUE(i == 0 || levels[i - 1] < levels[i]);
      EXPECT_TRUE(f.bits != kFloat32.bits || levels[i] == static_cast<float>(levels[i]));
    }
    Values again = levels;
    ASSERT_TRUE(store_levels(f, outward, 9, &again, &changed));
    EXPECT_TRUE(!changed && again == levels);  // all belong to the format
    const double half = std::ldexp(1, 1 - f.bits), least = std::ldexp(1, f.smallest + 1 - f.bits);
    for (const double x : exact) {
      double best = INFINITY;
      for (const double y : levels) best = std::min(best, std::fabs(x - y));
      EXPECT_LE(best, std::max(half * std::fabs(x), least));
    }
  }
  bool changed;
  Values big{0, 65519, 65520};
  EXPECT_FALSE(store_levels(kFloat16, true, 3, &big, &changed));
  EXPECT_EQ(big[0], 65520);
  Values fits{0, 65519};
  EXPECT_TRUE(store_levels(kFloat16, false, 2, &fits, &changed));
  EXPECT_EQ(fits.back(), 65504);
}

TEST(Candidates, AllValuesGiveTheOptimum) {
  std::mt19937_64 g(4);
  Scratch scratch;
  for (int round = 0; round < 40; ++round) {
    const Values x = spread(2 + g() % 200, -6, 2, &g);
    Values grid = x;
    std::sort(grid.begin(), grid.end());
    for (int64_t s = 2; s < 8; ++s) {
      const auto best =
          solve(x.data(), nullptr, x.size(), Objective::stochastic, Method::exact, s, &scratch);
      const auto found = solve_among(x.data(), nullptr, x.size(), Objective::stochastic, s, grid);
      EXPECT_NEAR(found.cost, best.cost, 1e-12 * best.cost);
      EXPECT_TRUE(found.certified);
    }
  }
}

}  // namespace
}  // namespace torchext::levels
