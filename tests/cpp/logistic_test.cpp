// exp and logarithms of the logistic losses against those of the C library.
#include "kernels/logistic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace torchext {
namespace {

/// |got - want| in units of the last place of want.
double ulps(double got, double want) {
  const double next = std::nextafter(std::fabs(want), std::numeric_limits<double>::infinity());
  return std::fabs(got - want) / (next - std::fabs(want));
}

TEST(Logistic, ExpOfNegativeNumbers) {
  double worst = 0.0;
  for (double x = 0.0; x > -760.0; x -= 0.000731) {
    worst = std::max(worst, ulps(exp_of_negative(x), std::exp(x)));
  }
  for (int k = -1074; k <= 0; ++k) {
    const double x = -std::ldexp(1.0, k);
    worst = std::max(worst, ulps(exp_of_negative(x), std::exp(x)));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(exp_of_negative(0.0), 1.0);
  EXPECT_EQ(exp_of_negative(-0.0), 1.0);
  EXPECT_EQ(exp_of_negative(-std::numeric_limits<double>::infinity()), 0.0);
  EXPECT_TRUE(std::isnan(exp_of_negative(std::nan(""))));
}

TEST(Logistic, LogOfOnePlus) {
  double worst = 0.0;
  for (int64_t i = 0; i <= 1'000'000; ++i) {
    const double s = static_cast<double>(i) * 1e-6;
    worst = std::max(worst, ulps(log_one_plus(s), std::log1p(s)));
  }
  for (int k = -1074; k <= 0; ++k) {
    worst = std::max(worst, ulps(log_one_plus(std::ldexp(1.0, k)), std::log1p(std::ldexp(1.0, k))));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(log_one_plus(0.0), 0.0);
}

TEST(Logistic, LogFromOne) {
  double worst = 0.0;
  for (double x = 1.0; x < 1e300; x *= 1.000713) {
    worst = std::max(worst, ulps(log_of(x), std::log(x)));
  }
  for (int64_t i = 1; i <= 1'000'000; ++i) {
    const double x = 1.0 + static_cast<double>(i) * 2e-6;
    worst = std::max(worst, ulps(log_of(x), std::log(x)));
  }
  for (const double x : {1.0 + 0x1p-52, 1.5, std::nextafter(1.5, 2.0), std::nextafter(2.0, 1.0)}) {
    worst = std::max(worst, ulps(log_of(x), std::log(x)));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(log_of(1.0), 0.0);
  EXPECT_TRUE(std::isnan(log_of(std::nan(""))));
}

TEST(Logistic, LossAndSlope) {
  for (const double y : {1.0, -1.0}) {
    for (double z = -40.0; z < 40.0; z += 0.37) {
      const LossAndSlope at = logistic_loss(z, y);
      EXPECT_NEAR(at.loss, std::log1p(std::exp(-y * z)), 1e-14 * std::fmax(1.0, at.loss));
      EXPECT_NEAR(at.slope, -y / (1.0 + std::exp(y * z)), 1e-15);
    }
    EXPECT_EQ(logistic_loss(1000.0 * y, y).loss, 0.0);
    EXPECT_EQ(logistic_loss(-1000.0 * y, y).loss, 1000.0);
    EXPECT_EQ(logistic_loss(-1000.0 * y, y).slope, -y);
  }
}

}  // namespace
}  // namespace torchext
