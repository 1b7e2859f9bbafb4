#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/levels/bins.h"
#include "kernels/levels/common_value.h"
#include "kernels/levels/solve.h"

namespace torchext::levels {
namespace {

using Floats = std::vector<float>;

/// Every instruction set this processor has, in turn.
template <class Body>
void on_every_isa(const Body& body) {
  const cpu::Isa before = cpu::active_isa();
  for (int isa = 0; isa <= static_cast<int>(cpu::best_isa()); ++isa) {
    cpu::force_isa(static_cast<cpu::Isa>(isa));
    body(cpu::isa_name(static_cast<cpu::Isa>(isa)));
  }
  cpu::force_isa(before);
}

/// A share of copies of `common` among normal values, some of them next to it.
Floats mostly(float common, double share, size_t n, uint64_t seed) {
  std::mt19937_64 g(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> uniform;
  Floats x(n);
  for (float& v : x) {
    v = normal(g);
    if (g() % 50 == 0) v = std::nextafter(common, g() % 2 == 0 ? 1e9f : -1e9f);
    if (uniform(g) < share) v = common;
  }
  return x;
}

TEST(CommonValue, OthersAreCopiedInOrder) {
  for (size_t n = 0; n <= 70; ++n) {
    for (const double share : {0.0, 0.5, 1.0}) {
      Floats x = mostly(0.0f, share, n, n);
      if (n > 3) x[3] = -0.0f;  // equal to 0
      if (n > 20) x[20] = HUGE_VALF;
      Floats want;
      std::copy_if(x.begin(), x.end(), std::back_inserter(want), [](float v) { return v != 0; });
      for (CopyOthersFn* f : {copy_others_ref, copy_others_avx2, copy_others_avx512}) {
        const auto isa = f == copy_others_ref    ? cpu::Isa::ref
                         : f == copy_others_avx2 ? cpu::Isa::avx2
                                                 : cpu::Isa::avx512;
        if (isa > cpu::best_isa()) continue;
        Floats out(n + 16, -1.0f);
        out.resize(f(x.data(), n, 0.0f, out.data()));
        EXPECT_EQ(out, want) << n << " " << share;
      }
    }
  }
}

TEST(CommonValue, IsSeenInASample) {
  for (const float common : {0.0f, -3.5f}) {
    const Floats x = mostly(common, 0.7, 5000, 1);
    on_every_isa([&](const char* isa) {
      const Thinned t = take_out_common(x.data(), x.size());
      ASSERT_EQ(t.runs.size(), 1u) << isa;
      EXPECT_EQ(t.runs[0].value, common) << isa;
      EXPECT_EQ(t.runs[0].copies, static_cast<uint64_t>(std::count(x.begin(), x.end(), common)));
      EXPECT_EQ(t.n + t.runs[0].copies, x.size());
    });
  }
  const Floats none = mostly(0, 0.1, 5000, 2);
  const Thinned t = take_out_common(none.data(), none.size());
  EXPECT_TRUE(t.x == none.data() && t.n == none.size() && t.runs.empty());
  EXPECT_EQ(take_out_common(none.data(), 0).n, 0u);
}

/// The same axis and members from an order whose sample shows the value and from one that hides it.
TEST(CommonValue, BinsDoNotDependOnWhetherItIsSeen) {
  for (const float common : {0.0f, 1.25f, -7.0f}) {
    Floats seen = mostly(common, 0.8, 20000, 3), hidden = seen;
    std::sort(seen.begin(), seen.end());
    size_t other = 0;
    for (size_t k = 0; k < 32; ++k) {  // values from elsewhere to where the sample looks
      while (hidden[other] == common || other % (hidden.size() / 32) == 0) ++other;
      std::swap(hidden[hidden.size() / 32 * k], hidden[other++]);
    }
    ASSERT_FALSE(take_out_common(seen.data(), seen.size()).runs.empty());
    ASSERT_TRUE(take_out_common(hidden.data(), hidden.size()).runs.empty());
    const FloatBins a(seen.data(), seen.size(), 256, 256, true),
        b(hidden.data(), hidden.size(), 256, 256, true);
    EXPECT_EQ(a.axis.lo, b.axis.lo);
    EXPECT_EQ(a.axis.hi, b.axis.hi);
    EXPECT_EQ(a.axis.centre, b.axis.centre);
    for (size_t i = 0; i < a.axis.cut.size(); ++i) {
      EXPECT_EQ(a.axis.cut[i].w.h, b.axis.cut[i].w.h);
      EXPECT_EQ(a.axis.cut[i].s.h, b.axis.cut[i].s.h);
      EXPECT_EQ(a.axis.cut[i].q.l, b.axis.cut[i].q.l);
    }
    std::vector<uint32_t> all(a.axis.size());
    std::iota(all.begin(), all.end(), 0u);
    for (const FloatBins* bins : {&a, &b}) {
      std::vector<double> members;
      std::vector<size_t> start;
      bins->members(all, &members, &start);
      EXPECT_TRUE(std::equal(members.begin(), members.end(), seen.begin(), seen.end()));
    }
  }
}

/// One value that is not finite among many equal or different ones, or nothing else.
TEST(CommonValue, NotFiniteIsNoticed) {
  Scratch scratch;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const double share : {0.0, 0.8, 1.0}) {
    for (const float bad : {nan, -nan, HUGE_VALF, -HUGE_VALF}) {
      Floats x = mostly(0, share, 20000, 7);
      on_every_isa([&](const char* isa) {
        for (const size_t at : {0, 625, 13333, 19999}) {  // seen in the sample, and not
          const float before = x[at];
          x[at] = bad;
          for (const Method m : {Method::exact, Method::hist})
            EXPECT_FALSE(
                solve(x.data(), nullptr, x.size(), Objective::nearest, m, 4, &scratch).finite)
                << isa << " " << share << " " << at;
          x[at] = before;
        }
        EXPECT_TRUE(
            solve(x.data(), nullptr, x.size(), Objective::nearest, Method::hist, 4, &scratch)
                .finite);
      });
      const Floats all(20000, bad);
      EXPECT_FALSE(
          solve(all.data(), nullptr, all.size(), Objective::nearest, Method::exact, 4, &scratch)
              .finite);
    }
  }
}

/// Few distinct values: ascending ones are taken out whole, the rest of the way is the same.
TEST(CommonValue, RunsOfAscendingValuesDoNotChangeABit) {
  Scratch scratch;
  std::mt19937_64 g(9);
  std::normal_distribution<float> normal;
  for (const double scale : {1.0, 1e-3}) {
    Floats x(30000);
    for (float& v : x) v = static_cast<float>(1e6 + scale * normal(g) * 8);  // steps of 1/16
    Floats ascending = x;
    std::sort(ascending.begin(), ascending.end());
    const Thinned t = take_out_common(ascending.data(), ascending.size());
    EXPECT_EQ(t.n, 0u);
    uint64_t all = 0;
    for (const auto& r : t.runs) all += r.copies;
    EXPECT_EQ(all, x.size());
    for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
      for (const Method m : {Method::exact, Method::hist}) {
        const auto run = [&](const Floats& v) {
          return solve(v.data(), nullptr, v.size(), objective, m, 9, &scratch);
        };
        const Solution got = run(ascending), want = run(x);
        EXPECT_EQ(got.levels, want.levels);
        EXPECT_EQ(got.cost, want.cost);
        EXPECT_EQ(got.lower_bound, want.lower_bound);
      }
    }
    ascending.back() = std::numeric_limits<float>::quiet_NaN();
    EXPECT_FALSE(
        solve(ascending.data(), nullptr, x.size(), Objective::nearest, Method::exact, 9, &scratch)
            .finite);
    ascending.back() = HUGE_VALF;
    EXPECT_FALSE(
        solve(ascending.data(), nullptr, x.size(), Objective::nearest, Method::exact, 9, &scratch)
            .finite);
  }
}

TEST(CommonValue, SolutionsAreTheSameToTheBit) {
  Scratch scratch;
  for (const float common : {0.0f, 2.5f}) {
    for (const double share : {0.35, 0.9, 1.0}) {
      Floats x = mostly(common, share, 40000, 5), sorted = x;
      std::sort(sorted.begin(), sorted.end());
      for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
        for (const Method m : {Method::exact, Method::hist}) {
          const auto run = [&](const Floats& v) {
            return solve(v.data(), nullptr, v.size(), objective, m, 7, &scratch);
          };
          const Solution want = run(sorted);
          EXPECT_TRUE(m == Method::hist || want.certified);
          on_every_isa([&](const char* isa) {
            const Solution got = run(x);
            const std::string what = std::string(isa) + " " + std::to_string(share);
            EXPECT_EQ(got.levels, want.levels) << what;
            EXPECT_EQ(got.cost, want.cost) << what;
            EXPECT_EQ(got.lower_bound, want.lower_bound) << what;
          });
        }
      }
    }
  }
}

}  // namespace
}  // namespace torchext::levels
