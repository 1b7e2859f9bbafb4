#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/levels/adaquant.h"
#include "kernels/levels/bins.h"
#include "kernels/levels/reference.h"
#include "kernels/levels/solve.h"
#include "kernels/levels/sort.h"
#include "kernels/levels/tile.h"

namespace torchext::levels {
namespace {

using Values = std::vector<double>;

/// Values whose arithmetic is awkward in one way each.
Values awkward(int kind, size_t n, std::mt19937_64* g) {
  std::normal_distribution<double> normal;
  Values x(n);
  for (double& v : x) {
    const double z = normal(*g);
    switch (kind) {
      case 0: v = z; break;
      case 1: v = std::floor(3 * z); break;                           // duplicates
      case 2: v = static_cast<double>((*g)() % 5) + 1e-6 * z; break;  // tight clusters
      case 3: v = (*g)() % 9 == 0 ? 1e6 * z : z; break;               // outliers
      case 4: v = 1e8 + z; break;                                     // mean / std = 1e8
      case 5: v = std::exp(3 * z); break;                             // heavy tail
      case 6: v = std::tan(1.5707 * std::sin(3 * z)); break;          // heavier
      case 7: v = (*g)() % 10 == 0 ? z : 0.0; break;                  // 90 % zeros
      case 8: v = -std::fabs(z) - 1; break;                           // negative
      case 9: v = (*g)() % 2 == 0 ? -1.5 : 2.25; break;               // two values
      case 10: v = 1e-310 * z; break;                                 // subnormal
      case 11: v = 1e300 * z; break;                                  // squares overflow
      default: v = 7.5;                                               // constant
    }
  }
  return x;
}
constexpr int kKinds = 13;

/// F of the levels in long double, straight from its definition.
long double cost_of(const Values& x, const Values& w, const Values& q, Objective objective) {
  long double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!w.empty() && w[i] == 0) continue;
    long double best = std::numeric_limits<long double>::infinity();
    if (objective == Objective::nearest) {
      for (const double l : q)
        best = std::min(
            best, (static_cast<long double>(x[i]) - l) * (x[i] - static_cast<long double>(l)));
    } else {
      const auto up = std::lower_bound(q.begin(), q.end(), x[i]);
      if (up == q.end()) return best;
      const long double b = *up, a = up == q.begin() ? b : static_cast<long double>(up[-1]);
      if (up == q.begin() && x[i] < b) return best;
      best = (b - x[i]) * (x[i] - a);
    }
    sum += (w.empty() ? 1.0L : static_cast<long double>(w[i])) * best;
  }
  return sum;
}

void expect_valid(const Solution& s, const Values& x, const Values& w, int64_t count,
                  Objective objective, const std::string& what) {
  ASSERT_FALSE(s.levels.empty()) << what;
  EXPECT_LE(s.levels.size(), static_cast<size_t>(count)) << what;
  for (size_t i = 1; i < s.levels.size(); ++i) EXPECT_LT(s.levels[i - 1], s.levels[i]) << what;
  const auto cost = static_cast<double>(cost_of(x, w, s.levels, objective));
  if (std::isfinite(s.cost)) {
    EXPECT_NEAR(s.cost, cost, 1e-9 * cost + 1e-320) << what;
  }
  EXPECT_LE(s.lower_bound, s.cost) << what;
}

TEST(Levels, ExactMethodsEqualTheReference) {
  std::mt19937_64 g(1);
  Scratch scratch;
  for (int round = 0; round < 400; ++round) {
    const int kind = round % kKinds;
    const size_t n = 1 + g() % 80;
    const Values x = awkward(kind, n, &g);
    Values w;
    if (round % 3 == 0) {
      for (size_t i = 0; i < n; ++i) w.push_back(static_cast<double>(g() % 4) * 0.75);
      w[0] = 1;
    }
    const double* weight = w.empty() ? nullptr : w.data();
    for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
      for (int64_t s = objective == Objective::nearest ? 1 : 2; s <= 7; ++s) {
        const auto run = [&](Method m) {
          return solve(x.data(), weight, n, objective, m, s, &scratch);
        };
        const Solution want = run(Method::dp);
        const std::string what = "kind " + std::to_string(kind) + " n " + std::to_string(n) +
                                 " s " + std::to_string(s) + " objective " +
                                 std::to_string(static_cast<int>(objective));
        expect_valid(want, x, w, s, objective, what);
        for (const Method m : {Method::exact, Method::dnc, Method::hist}) {
          const Solution got = run(m);
          expect_valid(got, x, w, s, objective, what);
          if (std::isfinite(want.cost)) {
            EXPECT_NEAR(got.cost, want.cost, 1e-12 * want.cost) << what;
          } else {
            EXPECT_EQ(got.levels, want.levels) << what;  // a cost above 1.8e308
          }
          EXPECT_TRUE(got.certified) << what;
          EXPECT_LE(got.lower_bound, want.cost * (1 + 1e-15)) << what;
        }
        expect_valid(run(Method::smawk), x, w, s, objective, what);
        if (objective == Objective::stochastic) {
          const Solution greedy = run(Method::adaquant);
          expect_valid(greedy, x, w, s, objective, what);
          EXPECT_GE(greedy.cost, want.cost * (1 - 1e-12)) << what;
          EXPECT_LE(greedy.cost, 1.5 * want.cost + 1e-320) << what;
        }
      }
    }
  }
}

/// One pass per price against one per level, on every kind of data.
TEST(Levels, PricesFindWhatLayersFind) {
  std::mt19937_64 g(7);
  Scratch by_price, by_layer;
  by_layer.priced = false;
  for (int round = 0; round < 5 * kKinds; ++round) {
    const size_t n = 200 + g() % 3000;
    const Values x = awkward(round % kKinds, n, &g);
    for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
      for (const int64_t s : {3, 9, 40}) {
        const Solution got = solve(x.data(), nullptr, n, objective, Method::dnc, s, &by_price),
                       want = solve(x.data(), nullptr, n, objective, Method::dnc, s, &by_layer);
        const std::string what = "kind " + std::to_string(round % kKinds) + " n " +
                                 std::to_string(n) + " s " + std::to_string(s);
        EXPECT_TRUE(got.certified) << what;
        if (std::isfinite(want.cost)) {
          EXPECT_NEAR(got.cost, want.cost, 1e-12 * want.cost) << what;
        }
        EXPECT_LE(got.lower_bound, want.cost * (1 + 1e-15)) << what;
      }
    }
  }
}

/// The pruning search itself, which solve() would not use on so little data.
TEST(Levels, CoarseToFineKeepsEveryOptimum) {
  std::mt19937_64 g(2);
  PathScratch scratch;
  for (int round = 0; round < 600; ++round) {
    const int kind = round % 9;
    Values x = awkward(kind, 20 + g() % 300, &g);
    sort_values(x.data(), nullptr, x.size());
    Axis axis;
    axis_of_sorted(x.data(), nullptr, x.size(), &axis);
    Values w(axis.size());
    for (size_t i = 0; i < w.size(); ++i) w[i] = (axis.cut[i + 1].w - axis.cut[i].w).h;
    for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
      const auto s = static_cast<int64_t>(3 + g() % 5);
      if (static_cast<int64_t>(axis.size()) <= s) continue;
      CoarseToFine search(objective, s);
      search.start(axis);
      search.refine(axis, INT64_MAX);
      const auto lists = search.candidates();
      Layers layers;
      for (const auto& l : lists) layers.push_back(&l);
      bool accurate;
      const auto want = reference_path(axis.lo, w, objective, s);
      const double best = path_cost(axis, objective, want, &accurate);
      const Path got = best_path(axis, objective, layers, true, &scratch);
      EXPECT_NEAR(path_cost(axis, objective, got.at, &accurate), best, 1e-12 * best)
          << kind << " " << axis.size() << " " << s;
      EXPECT_LE(search.lower(), best * (1 + 1e-12));
      EXPECT_GE(search.upper(), best * (1 - 1e-6));  // plain double
    }
  }
}

/// Large inputs, where bins, opening and double-double come in.
TEST(Levels, BinsAndSortedRunsAgreeWithTheWholeProgramme) {
  std::mt19937_64 g(3);
  Scratch scratch;
  for (int kind = 0; kind < kKinds; ++kind) {
    if (kind == 10 || kind == 11) continue;  // not float32
    const Values wide = awkward(kind, 40000, &g);
    std::vector<float> x(wide.begin(), wide.end());
    const Values d(x.begin(), x.end());
    std::vector<float> shuffled = x;
    std::shuffle(shuffled.begin(), shuffled.end(), g);
    for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
      for (const int64_t s : {5, 16}) {
        const auto exact =
            solve(x.data(), nullptr, x.size(), objective, Method::exact, s, &scratch);
        const auto other =
            solve(shuffled.data(), nullptr, x.size(), objective, Method::exact, s, &scratch);
        const auto runs = solve(d.data(), nullptr, x.size(), objective, Method::exact, s, &scratch);
        const auto whole = solve(d.data(), nullptr, x.size(), objective, Method::dnc, s, &scratch);
        const auto hist = solve(x.data(), nullptr, x.size(), objective, Method::hist, s, &scratch);
        const std::string what = "kind " + std::to_string(kind) + " s " + std::to_string(s);
        expect_valid(exact, d, {}, s, objective, what);
        EXPECT_TRUE(exact.certified && runs.certified && whole.certified) << what;
        EXPECT_EQ(exact.levels, other.levels) << what;
        EXPECT_EQ(exact.cost, other.cost) << what;
        EXPECT_EQ(exact.lower_bound, other.lower_bound) << what;
        EXPECT_NEAR(exact.cost, runs.cost, 1e-12 * exact.cost) << what;
        EXPECT_NEAR(exact.cost, whole.cost, 1e-9 * exact.cost) << what;
        EXPECT_GE(hist.cost, exact.cost * (1 - 1e-12)) << what;
        EXPECT_LE(hist.lower_bound, exact.cost) << what;
        EXPECT_LE(cost_of(d, {}, hist.levels, objective), hist.cost * (1 + 1e-12)) << what;
      }
    }
  }
}

TEST(Levels, AdaquantIsWithinTwiceTheOptimum) {
  std::mt19937_64 g(4);
  Scratch scratch;
  for (int round = 0; round < 300; ++round) {
    Values x = awkward(round % 9, 50 + g() % 1000, &g);
    sort_values(x.data(), nullptr, x.size());
    Axis axis;
    axis_of_sorted(x.data(), nullptr, x.size(), &axis);
    const auto s = static_cast<int64_t>(2 + g() % 7);
    const std::vector<uint32_t> ends = merge_intervals(axis, s);
    EXPECT_LE(ends.size(), static_cast<size_t>(std::max<int64_t>(4 * (s - 1) + 2, 3)));
    EXPECT_TRUE(std::is_sorted(ends.begin(), ends.end()));
    bool accurate;
    const Solution best =
        solve(x.data(), nullptr, x.size(), Objective::stochastic, Method::exact, s, &scratch);
    EXPECT_LE(path_cost(axis, Objective::stochastic, ends, &accurate), 2 * best.cost * (1 + 1e-12));
  }
}

TEST(Levels, FloatBinsHoldExactSums) {
  std::mt19937_64 g(5);
  for (int kind = 0; kind < 9; ++kind) {
    const Values wide = awkward(kind, 30000, &g);
    const std::vector<float> x(wide.begin(), wide.end());
    const FloatBins bins(x.data(), x.size(), 4096, 4096, true);
    const Axis& axis = bins.axis;
    Values sorted(x.begin(), x.end());
    sort_values(sorted.data(), nullptr, sorted.size());
    EXPECT_EQ(axis.lo.front(), sorted.front());
    EXPECT_EQ(axis.hi.back(), sorted.back());
    EXPECT_LE(axis.size(), sorted.size());
    std::vector<uint32_t> all(axis.size());
    std::iota(all.begin(), all.end(), 0u);
    Values members;
    std::vector<size_t> start;
    bins.members(all, &members, &start);
    EXPECT_EQ(members, sorted) << kind;
    long double s = 0, q = 0;
    for (size_t i = 0; i < axis.size(); ++i) {
      EXPECT_EQ(axis.cut[i].w.h, static_cast<double>(start[i]));
      const long double magnitude = axis.radius;
      EXPECT_NEAR(static_cast<double>(axis.cut[i].s.h - s), 0, 1e-15 * magnitude * 3e4);
      EXPECT_NEAR(static_cast<double>(axis.cut[i].q.h - q), 0, 1e-15 * magnitude * magnitude * 3e4);
      for (size_t k = start[i]; k < start[i + 1]; ++k) {
        EXPECT_TRUE(members[k] >= axis.lo[i] && members[k] <= axis.hi[i]);
        const long double t = static_cast<long double>(members[k]) - axis.centre;
        s += t;
        q += t * t;
      }
    }
  }
}

class LevelsParity : public testing::TestWithParam<int> {};

TEST_P(LevelsParity, SameBitsAsTheReference) {
  const auto isa = static_cast<cpu::Isa>(GetParam());
  if (isa > cpu::best_isa()) GTEST_SKIP() << "this processor lacks " << cpu::isa_name(isa);
  const cpu::Isa before = cpu::active_isa();
  std::mt19937_64 g(6);
  Scratch scratch;
  for (int kind = 0; kind < kKinds; ++kind) {
    for (const size_t n : {1, 2, 3, 9, 64, 65, 513, 3000, 20000}) {
      const Values x = awkward(kind, n, &g);
      for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
        for (const Method m : {Method::exact, Method::hist}) {
          Solution got[2];
          for (int k = 0; k < 2; ++k) {
            cpu::force_isa(k == 0 ? cpu::Isa::ref : isa);
            got[k] = solve(x.data(), nullptr, n, objective, m, 6, &scratch);
          }
          EXPECT_EQ(got[0].levels, got[1].levels) << kind << " " << n;
          EXPECT_EQ(got[0].cost, got[1].cost) << kind << " " << n;
          EXPECT_EQ(got[0].lower_bound, got[1].lower_bound) << kind << " " << n;
          EXPECT_EQ(got[0].work.entries, got[1].work.entries) << kind << " " << n;
        }
      }
    }
  }
  cpu::force_isa(before);
}

INSTANTIATE_TEST_SUITE_P(Isas, LevelsParity, testing::Values(1, 2), [](const auto& info) {
  return std::string(cpu::isa_name(static_cast<cpu::Isa>(info.param)));
});

}  // namespace
}  // namespace torchext::levels
