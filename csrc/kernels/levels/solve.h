// Optimal quantization levels of a set of values: the entry point of the level solvers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "axis.h"
#include "coarse_to_fine.h"
#include "path.h"

namespace torchext::levels {

enum class Method : int {
  exact,     // certified coarse-to-fine; the whole programme for few values
  hist,      // bins only, nothing is sorted
  adaquant,  // greedy merging, then the programme on the ends that are left
  dnc,       // the whole programme by divide and conquer
  smawk,     // the whole programme by SMAWK: the baseline of the benchmarks
  dp         // the whole programme in long double: the oracle of the tests
};

struct Solution {
  std::vector<double> levels;  // ascending, distinct; as many as asked for, or all distinct values
  double cost = 0;             // of these levels
  double lower_bound = 0;      // no levels cost less
  bool certified = false;      // cost - lower_bound <= 1e-9 cost
  bool finite = true;          // false: a value was not, and nothing else is set
  Work work;

  /// Given the cost, takes a proved bound.
  void settle(double proved) {
    const Bound bound = settled(cost, proved);
    lower_bound = bound.lower;
    certified = bound.certified;
  }
};

/// Memory that is kept from one set of values to the next.
struct Scratch {
  std::vector<double> x, weight;
  Axis axis;
  PathScratch path;
  std::vector<uint32_t> all, first, last;
  bool priced = true;  // false: level by level, which tests compare with
};

/// Most values one call can take: positions are 31 bits wide.
constexpr size_t kMostValues = (size_t{1} << 31) - 64;

/// Whether solve() counts so many float32 values without weights rather than sort them. Then it
/// notices values that are not finite.
bool counts_values(Method method, size_t n, int64_t levels);

/// Levels of finite x [n], n >= 1, in any order, with weights >= 0 (null: 1 each) whose sum is
/// finite; values of weight 0 are absent, and where all are, so are the levels. levels >= 2
/// (nearest: 1). adaquant needs the stochastic objective, dp at most 20,000 distinct values. rtol >
/// 0: hist opens bins until its gap is at most rtol of the cost. Same bits for any order of the
/// values, every instruction set and every call.
template <class T>
Solution solve(const T* x, const double* weight, size_t n, Objective objective, Method method,
               int64_t levels, Scratch* scratch, double rtol = 0);

extern template Solution solve(const float*, const double*, size_t, Objective, Method, int64_t,
                               Scratch*, double);
extern template Solution solve(const double*, const double*, size_t, Objective, Method, int64_t,
                               Scratch*, double);

}  // namespace torchext::levels
