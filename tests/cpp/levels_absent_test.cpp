#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/levels/candidates.h"
#include "kernels/levels/rounding_error.h"
#include "kernels/levels/solve.h"

namespace torchext::levels {
namespace {

using Values = std::vector<double>;

void expect_same(const Solution& a, const Solution& b, const char* what) {
  EXPECT_EQ(a.levels, b.levels) << what;
  EXPECT_EQ(a.cost, b.cost) << what;
  EXPECT_EQ(a.lower_bound, b.lower_bound) << what;
  EXPECT_EQ(a.certified, b.certified) << what;
}

struct Weighted {
  Values x, w;
};

/// Normal values about 1 with weights, and the same with absent ones in between, huge and tiny.
class LevelsAbsent : public testing::Test {
 protected:
  LevelsAbsent() {
    std::mt19937_64 g(11);
    std::normal_distribution<double> normal(1);
    const double absent[] = {1.7e308, -1.7e308, 1e301, -5e-324, 0.0};
    for (int i = 0; i < 700; ++i) {
      const double x = normal(g), w = static_cast<double>(1 + g() % 5) / 3;
      for (Weighted* p : {&plain, &with}) {
        p->x.push_back(x);
        p->w.push_back(w);
      }
      if (i % 7 != 0) continue;
      with.x.push_back(absent[g() % 5]);
      with.w.push_back(0);
    }
  }

  Weighted plain, with;
  Scratch scratch;
};

TEST_F(LevelsAbsent, NoTraceInAnyMethod) {
  for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
    for (const Method m :
         {Method::exact, Method::hist, Method::adaquant, Method::dnc, Method::smawk, Method::dp}) {
      if (m == Method::adaquant && objective == Objective::nearest) continue;
      const auto run = [&](const Weighted& v) {
        return solve(v.x.data(), v.w.data(), v.x.size(), objective, m, 6, &scratch);
      };
      const Solution got = run(with);
      EXPECT_EQ(got.levels.size(), 6u);
      EXPECT_TRUE(std::isfinite(got.cost));
      expect_same(got, run(plain), "solve");
    }
    Values grid;
    for (int k = -20; k <= 28; ++k) grid.push_back(0.25 * k);
    const auto among = [&](const Weighted& v) {
      return solve_among(v.x.data(), v.w.data(), v.x.size(), objective, 6, grid);
    };
    const Solution got = among(with);
    EXPECT_TRUE(got.certified && got.cost > 0);
    expect_same(got, among(plain), "solve_among");
  }
}

TEST_F(LevelsAbsent, NoTraceInTheErrorOfLevels) {
  const Values levels{-1, 0, 0.5, 2, 3};
  const cpu::Isa before = cpu::active_isa();
  for (int isa = 0; isa <= static_cast<int>(cpu::best_isa()); ++isa) {
    cpu::force_isa(static_cast<cpu::Isa>(isa));
    for (const bool stochastic : {true, false}) {
      const auto run = [&](const Weighted& v) {
        return ErrorMeter(v.x.data(), v.w.data(), static_cast<int64_t>(v.x.size()), levels.data(),
                          static_cast<int64_t>(levels.size()))
            .measure(stochastic);
      };
      const RoundingError want = run(plain), got = run(with);
      EXPECT_TRUE(std::isfinite(got.bias2));
      EXPECT_EQ(got.variance, want.variance);
      EXPECT_EQ(got.bias2, want.bias2);
      EXPECT_EQ(got.clipped, want.clipped);
    }
  }
  cpu::force_isa(before);
}

TEST_F(LevelsAbsent, NothingPresentHasNoLevels) {
  const Values x{1, 1e308}, w{0, 0};
  const Solution all = solve(x.data(), w.data(), 2, Objective::nearest, Method::exact, 2, &scratch),
                 among = solve_among(x.data(), w.data(), 2, Objective::nearest, 2, {0, 1});
  for (const Solution& s : {all, among}) {
    EXPECT_TRUE(s.levels.empty());
    EXPECT_EQ(s.cost, 0);
  }
}

}  // namespace
}  // namespace torchext::levels
