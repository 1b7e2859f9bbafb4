// Optimal error of known samples, and the a-priori bound of the histogram.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/levels/bins.h"
#include "kernels/levels/solve.h"

namespace torchext::levels {
namespace {

std::vector<float> sample(size_t n, bool lognormal) {
  std::mt19937_64 g(42);
  std::normal_distribution<double> normal;
  std::vector<float> x(n);
  for (float& v : x) {
    const double z = normal(g);
    v = static_cast<float>(lognormal ? std::exp(z) : z);
  }
  return x;
}

struct Quality {
  size_t n;
  bool lognormal;
  double vnmse[4];  // s = 4, 8, 16, 32
};

/// Variance over the squared norm, found by two independent solvers. At 4 levels and 2^20 values it
/// is near 1: as bad as sending zeros.
constexpr Quality kQuality[] = {
    {1 << 12, false, {0.7202, 0.10966, 0.022392, 0.0050278}},
    {1 << 12, true, {0.41295, 0.070168, 0.013900, 0.0028694}},
    {1 << 16, false, {0.7845, 0.11599, 0.023573, 0.0053679}},
    {1 << 16, true, {0.54380, 0.085981, 0.017824, 0.0040171}},
    {1 << 20, false, {0.8911, 0.12527, 0.024829, 0.0056170}},
    {1 << 20, true, {0.61152, 0.094138, 0.019659, 0.0045147}},
};

TEST(LevelsQuality, VarianceOfKnownSamples) {
  Scratch scratch;
  for (const Quality& q : kQuality) {
    const std::vector<float> x = sample(q.n, q.lognormal);
    double norm = 0;
    for (const float v : x) norm += static_cast<double>(v) * v;
    for (int k = 0; k < 4; ++k) {
      const auto found = solve(x.data(), nullptr, q.n, Objective::stochastic, Method::exact,
                               int64_t{4} << k, &scratch);
      EXPECT_TRUE(found.certified);
      EXPECT_NEAR(found.cost / norm / q.vnmse[k], 1, 1e-4) << q.n << " " << (4 << k);
    }
  }
}

/// Every level of an optimum lies in a bin, whose two ends around it cost at most n width^2 / 4
/// more: with 2 s - 2 levels the bins are that close to the optimum of s levels.
TEST(LevelsQuality, HistogramKeepsItsBound) {
  Scratch scratch;
  for (const bool lognormal : {false, true}) {
    const std::vector<float> x = sample(50000, lognormal);
    const FloatBins bins(x.data(), x.size(), 4096, 4096, true);
    const Axis& a = bins.axis;
    double widest = 0;
    for (size_t i = 0; i + 1 < a.size(); ++i) {
      const double held = (a.cut[i + 1].w - a.cut[i].w).h, width = a.lo[i + 1] - a.lo[i];
      widest = std::max(widest, held * width * width / 4);
    }
    for (const int64_t s : {3, 5, 9, 17}) {
      const auto best =
          solve(x.data(), nullptr, x.size(), Objective::stochastic, Method::exact, s, &scratch);
      const auto hist = solve(x.data(), nullptr, x.size(), Objective::stochastic, Method::hist,
                              2 * s - 2, &scratch);
      EXPECT_LE(hist.cost, best.cost + static_cast<double>(s - 2) * widest);
    }
  }
}

}  // namespace
}  // namespace torchext::levels
