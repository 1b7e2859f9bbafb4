// Bytes as numbers and weights: the exact solver against the whole programme, on bit patterns that
// no list of distributions has.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/levels/reference.h"
#include "kernels/levels/solve.h"
#include "kernels/levels/sort.h"

namespace torchext::levels {
namespace {

/// Reads numbers off a string of bytes, over and over again.
class Bytes {
 public:
  explicit Bytes(const std::vector<uint8_t>& data) : data_(data) {}

  template <class T>
  T next() {
    uint8_t raw[sizeof(T)];
    for (uint8_t& byte : raw) byte = data_[at_++ % data_.size()];
    T value;
    std::memcpy(&value, raw, sizeof(T));
    return value;
  }

  /// One of four kinds: any double, any float, few integers (ties everywhere), close to one.
  double number(int kind) {
    const auto near = static_cast<double>(next<int8_t>());
    if (kind == 2) return near;
    if (kind == 3) return std::ldexp(near, -30) + 1;
    const double value = kind == 0 ? next<double>() : static_cast<double>(next<float>());
    return std::isfinite(value) ? value : near;
  }

 private:
  const std::vector<uint8_t>& data_;
  size_t at_ = 0;
};

/// What must hold for any input; `data` is not empty.
void check(const std::vector<uint8_t>& data, Scratch* scratch) {
  Bytes bytes(data);
  const int kind = bytes.next<uint8_t>() % 4;
  const bool weighted = bytes.next<uint8_t>() % 2 == 0;
  const int64_t count = 2 + bytes.next<uint8_t>() % 12;
  const size_t n = 1 + bytes.next<uint16_t>() % 150;
  std::vector<double> x(n), weight(weighted ? n : 0);
  for (double& v : x) v = bytes.number(kind);
  for (double& w : weight) w = std::fabs(static_cast<double>(bytes.next<float>()));
  for (double& w : weight) w = w < 1e30 ? w : 0;  // as the op: their sum is finite
  std::vector<double> present;
  for (size_t i = 0; i < n; ++i)
    if (!weighted || weight[i] > 0) present.push_back(x[i]);
  double largest = 0, total = 0;  // what the sums are made of
  for (size_t i = 0; i < n; ++i) total += weighted ? weight[i] : 1.0;
  if (!present.empty()) {
    const auto [lo, hi] = std::minmax_element(present.begin(), present.end());
    largest = total * (*hi - *lo) * (*hi - *lo);
  }
  for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
    const auto run = [&](Method method) {
      return solve(x.data(), weighted ? weight.data() : nullptr, n, objective, method, count,
                   scratch);
    };
    const Solution got = run(Method::exact), want = run(Method::dp);
    ASSERT_EQ(got.levels.empty(), present.empty());
    ASSERT_TRUE(std::is_sorted(got.levels.begin(), got.levels.end(), std::less_equal<>()));
    if (present.empty()) continue;
    if (objective == Objective::stochastic) {
      EXPECT_EQ(got.levels.front(), *std::min_element(present.begin(), present.end()));
      EXPECT_EQ(got.levels.back(), *std::max_element(present.begin(), present.end()));
    }
    EXPECT_LE(got.lower_bound, got.cost);
    // Of sums that are 10^13 times the cost, double-double keeps too little to prove the last
    // digits.
    if (std::isfinite(want.cost) && want.cost >= 1e-13 * largest) {
      EXPECT_TRUE(got.certified);
      EXPECT_NEAR(got.cost, want.cost, 1e-9 * want.cost);  // what a certificate is worth
    }
  }
}

/// The search that solve() keeps for more values must not lose the optimum either.
void check_search(const std::vector<uint8_t>& data) {
  Bytes bytes(data);
  const int kind = bytes.next<uint8_t>() % 4;
  const int64_t count = 3 + bytes.next<uint8_t>() % 5;
  std::vector<double> x(20 + bytes.next<uint16_t>() % 200);
  for (double& v : x) v = std::clamp(bytes.number(kind), -1e100, 1e100);  // solve() has scaled it
  sort_values(x.data(), nullptr, x.size());
  Axis axis;
  axis_of_sorted(x.data(), nullptr, x.size(), &axis);
  if (static_cast<int64_t>(axis.size()) <= count) return;
  std::vector<double> weight(axis.size());
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = (axis.cut[i + 1].w - axis.cut[i].w).h;
  PathScratch scratch;
  for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
    CoarseToFine search(objective, count);
    search.start(axis);
    search.refine(axis, INT64_MAX);
    const auto lists = search.candidates();
    Layers layers;
    for (const auto& list : lists) layers.push_back(&list);
    bool accurate = false, known = false;
    const double want =
        path_cost(axis, objective, reference_path(axis.lo, weight, objective, count), &known);
    const Path found = best_path(axis, objective, layers, true, &scratch);
    const double got = path_cost(axis, objective, found.at, &accurate);
    if (!known || !accurate) continue;
    EXPECT_NEAR(got, want, 1e-9 * want);
    EXPECT_LE(search.lower(), want * (1 + 1e-9));
  }
}

/// Float32 values, so many that they are counted: bins, their bounds, and what is opened.
void check_bins(const std::vector<uint8_t>& data, Scratch* scratch) {
  Bytes bytes(data);
  const int kind = bytes.next<uint8_t>() % 4;
  const int64_t count = 2 + bytes.next<uint8_t>() % 30;
  const double least = std::ldexp(1.0, -(bytes.next<uint8_t>() % 100));  // how far tails reach
  std::vector<float> x(16500 + bytes.next<uint8_t>());
  for (float& v : x) {
    v = static_cast<float>(std::clamp(bytes.number(kind), -1e30, 1e30));
    if (kind == 1) v = static_cast<float>(std::fmod(v, 1 / least));
  }
  for (const Objective objective : {Objective::stochastic, Objective::nearest}) {
    const auto run = [&](Method method) {
      return solve(x.data(), nullptr, x.size(), objective, method, count, scratch);
    };
    const Solution want = run(Method::dnc), got = run(Method::exact), hist = run(Method::hist);
    if (!want.certified) continue;
    EXPECT_TRUE(got.certified);
    EXPECT_NEAR(got.cost, want.cost, 1e-9 * want.cost);
    EXPECT_GE(hist.cost, want.cost * (1 - 1e-9));
    EXPECT_LE(hist.lower_bound, want.cost * (1 + 1e-9));
  }
}

/// TX_FUZZ_RUNS=100000 looks longer.
int runs_or(int runs) {
  const char* asked = std::getenv("TX_FUZZ_RUNS");
  return asked != nullptr ? std::atoi(asked) : runs;
}

TEST(LevelsFuzz, BinsBoundTheOptimum) {
  std::mt19937_64 random(20261130);
  Scratch scratch;
  for (int run = 0, runs = runs_or(200); run < runs; ++run) {
    std::vector<uint8_t> data(8 + random() % 70000);
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    check_bins(data, &scratch);
    ASSERT_FALSE(HasFailure()) << "run " << run;
  }
}

TEST(LevelsFuzz, ExactEqualsTheProgrammeOnAnyBytes) {
  std::mt19937_64 random(20261129);
  Scratch scratch;
  for (int run = 0, runs = runs_or(2000); run < runs; ++run) {
    std::vector<uint8_t> data(8 + random() % 4000);
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    check(data, &scratch);
    check_search(data);
    ASSERT_FALSE(HasFailure()) << "run " << run;
  }
}

}  // namespace
}  // namespace torchext::levels
