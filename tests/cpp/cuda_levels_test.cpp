// Optimal levels on emulated CUDA blocks against the CPU solver, and the golden cases.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/levels/exact.h"
#include "kernels/levels/solve.h"
#include "kernels/levels/table.h"

namespace torchext::cuda {
namespace {

/// What an op would allocate for the results.
struct Results {
  std::vector<double> found, cost, lower;
  std::vector<int64_t> distinct;
  std::vector<uint8_t> certified;

  Results(size_t tables, size_t levels)
      : found(tables * levels), cost(tables), lower(tables), distinct(tables), certified(tables) {}
  bool* flags() { return reinterpret_cast<bool*>(certified.data()); }
};

/// Memory aligned as torch aligns it.
struct Workspace {
  explicit Workspace(int64_t bytes) : memory(static_cast<size_t>(bytes) + 64, 0xA5) {}
  unsigned char* data() {
    auto* p = memory.data();
    return p + (64 - reinterpret_cast<uintptr_t>(p) % 64) % 64;
  }
  std::vector<unsigned char> memory;
};

Results tables_of(const std::vector<double>& x, const std::vector<double>& weight, int64_t inner,
                  int32_t levels) {
  const auto n = static_cast<int64_t>(x.size());
  LevelTables p{};
  p.x64 = x.data();
  p.weight = weight.empty() ? nullptr : weight.data();
  p.outer = 1;
  p.count = (n + inner - 1) / inner;
  p.inner = inner;
  p.n = n;
  p.levels = levels;
  p.stochastic = true;
  Results r(static_cast<size_t>(p.count), static_cast<size_t>(levels));
  p.found = r.found.data();
  p.distinct = r.distinct.data();
  p.cost = r.cost.data();
  p.lower = r.lower.data();
  p.certified = r.flags();
  p.blocks = 2;
  Workspace work(2 * level_tables_work(p));
  p.work = work.data();
  EXPECT_EQ(launch_level_tables(p, nullptr), cudaSuccess);
  return r;
}

TEST(CudaLevels, Golden) {
  const Results r = tables_of({36, 0, 3, 28, 4, 6, 21, 10, 15, 1, 0, .1, .2, .9, 1}, {}, 10, 4);
  EXPECT_EQ(r.cost[0], 164);
  EXPECT_NEAR(r.cost[1], .01, 1e-16);
  EXPECT_EQ(r.found, (std::vector<double>{0, 10, 21, 36, 0, .2, .9, 1}));
  const Results w = tables_of({4, -8, 0, -3, 1}, {5, 1, 90, 1, 3}, 5, 3);
  EXPECT_EQ(w.cost[0], 24);
  EXPECT_EQ(w.found, (std::vector<double>{-8, 0, 4}));
}

TEST(CudaLevels, TablesEqualTheCpu) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  std::uniform_int_distribution<int> weights(0, 4);
  for (const int64_t inner : {1, 40, 129}) {
    std::vector<double> x(300), weight(x.size());
    for (double& v : x) v = std::nearbyint(normal(random) * 8) / 8;
    for (double& w : weight) w = weights(random) / 4.0;
    for (size_t k = 0; k < weight.size(); k += 40) weight[k] = 1;  // no table without a value
    for (const bool weighted : {false, true}) {
      if (weighted && inner == 1) continue;
      const Results r = tables_of(x, weighted ? weight : std::vector<double>{}, inner, 6);
      levels::Scratch scratch;
      for (size_t k = 0; k < r.cost.size(); ++k) {
        const size_t begin = k * static_cast<size_t>(inner);
        const size_t size = std::min(static_cast<size_t>(inner), x.size() - begin);
        const levels::Solution want =
            levels::solve(x.data() + begin, weighted ? weight.data() + begin : nullptr, size,
                          levels::Objective::stochastic, levels::Method::exact, 6, &scratch);
        EXPECT_EQ(r.cost[k], want.cost);
        EXPECT_EQ(r.lower[k], want.lower_bound);
        EXPECT_EQ(r.certified[k] != 0, want.certified);
        ASSERT_EQ(static_cast<size_t>(r.distinct[k]), want.levels.size());
        for (size_t i = 0; i < want.levels.size(); ++i)
          EXPECT_EQ(r.found[k * 6 + i], want.levels[i]);
      }
    }
  }
}

/// A large table, its results and the CPU's.
struct LargeTable {
  static constexpr int32_t kLevels = 4;
  std::vector<float> x = std::vector<float>(17000);
  Results r{1, kLevels};

  LargeTable() {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (float& v : x) v = normal(random);
  }
  HistLevels request(const HistWork& work) {
    return {x.data(),
            static_cast<int64_t>(x.size()),
            kLevels,
            true,
            0,
            r.found.data(),
            r.distinct.data(),
            r.cost.data(),
            r.lower.data(),
            r.flags(),
            work};
  }
  levels::Solution on_cpu(levels::Method method) const {
    levels::Scratch scratch;
    return levels::solve(x.data(), nullptr, x.size(), levels::Objective::stochastic, method,
                         kLevels, &scratch);
  }
};

TEST(CudaLevels, BinsEqualTheCpu) {
  LargeTable table;
  Workspace work(hist_work(nullptr, LargeTable::kLevels).bytes);
  const HistLevels p = table.request(hist_work(work.data(), LargeTable::kLevels));
  ASSERT_EQ(launch_float_bins(p, nullptr), cudaSuccess);
  ASSERT_EQ(launch_hist_levels(p, nullptr), cudaSuccess);
  const levels::Solution want = table.on_cpu(levels::Method::hist);
  EXPECT_EQ(table.r.found, want.levels);
  EXPECT_EQ(table.r.cost[0], want.cost);
  EXPECT_LE(table.r.lower[0], table.r.cost[0]);
  EXPECT_GE(table.r.lower[0], want.lower_bound * .99);
}

TEST(CudaLevels, ExactLevelsOfALargeTableEqualTheCpu) {
  LargeTable table;
  Workspace work(exact_work(nullptr, LargeTable::kLevels, false).bytes);
  ExactLevels p{};
  p.work = exact_work(work.data(), LargeTable::kLevels, false);
  p.table = table.request(p.work.hist);
  ASSERT_EQ(launch_float_bins(p.table, nullptr), cudaSuccess);
  ASSERT_EQ(launch_exact_levels(p, nullptr), cudaSuccess);
  const levels::Solution want = table.on_cpu(levels::Method::exact);
  EXPECT_EQ(table.r.found, want.levels);
  EXPECT_EQ(table.r.cost[0], want.cost);
  EXPECT_EQ(table.r.lower[0], want.lower_bound);
  EXPECT_TRUE(want.certified);
  EXPECT_NE(*table.r.flags(), 0);
}

TEST(CudaLevels, RefusesTablesThatAreTooLarge) {
  LevelTables p{};
  p.outer = p.count = 1;
  p.inner = p.n = kMostTableValues + 1;
  p.levels = 4;
  p.stochastic = true;
  EXPECT_EQ(launch_level_tables(p, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace torchext::cuda
