// Optimal quantization levels: checks, one table after another on torch's threads.
#include <tuple>

#include "kernels/levels/candidates.h"
#include "kernels/levels/rounding_error.h"
#include "levels_request.h"

namespace torchext::ops {
namespace {

using levels::Solution;

std::vector<double> read_candidates(const Tensor& candidates) {
  TX_CHECK(candidates.dim() == 1 && candidates.numel() > 0, kLevelsOp,
           "candidates must have shape (candidates,) with at least one, got ",
           shape_text(candidates));
  std::vector<double> values;
  FiniteValues(kLevelsOp, "candidates", candidates).visit([&](const auto* v) {
    values.assign(v, v + candidates.numel());
  });
  for (double& v : values) v += 0.0;  // -0.0 is +0.0
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

/// Range of the values that count; refuses weights without a positive, finite sum.
template <class T>
std::pair<double, double> range_of(const T* x, const double* weight, int64_t n, int64_t table) {
  double sum = 0, lo = INFINITY, hi = -INFINITY;
  for (int64_t i = 0; i < n; ++i) {
    const double w = weight != nullptr ? weight[i] : 1.0, v = x[i];
    sum += w;
    if (w == 0) continue;
    lo = std::min(lo, v);
    hi = std::max(hi, v);
  }
  TX_CHECK(sum > 0 && std::isfinite(sum), kLevelsOp,
           "weight must have a positive, finite sum, got ", sum, " for table ", table);
  return {lo, hi};
}

template <class T>
Solution solve_table(const Request& ask, const T* x, const double* weight, int64_t n, int64_t table,
                     levels::Scratch* scratch) {
  const auto size = static_cast<size_t>(n);
  if (weight != nullptr || ask.candidates || (ask.stochastic() && ask.count == 1)) {
    const auto [lo, hi] = range_of(x, weight, n, table);
    TX_CHECK(!ask.stochastic() || ask.count > 1 || (lo == hi && !ask.candidates), kLevelsOp,
             "levels must be in [2, 65536] where values differ or candidates are given, got 1");
    TX_CHECK(!ask.candidates || !ask.stochastic() ||
                 (ask.candidates->front() <= lo && hi <= ask.candidates->back()),
             kLevelsOp, "candidates must cover the values from ", lo, " to ", hi, ", got ",
             ask.candidates->front(), " to ", ask.candidates->back());
  }
  Solution found =
      ask.candidates
          ? levels::solve_among(x, weight, size, ask.objective, ask.count, *ask.candidates)
          : levels::solve(x, weight, size, ask.objective, ask.method, ask.count, scratch, ask.rtol);
  if (!found.finite) return found;
  const double gap = found.cost - found.lower_bound;
  found.certified = found.certified || (ask.rtol > 0 && gap <= ask.rtol * found.cost);
  bool changed;
  const bool fits = levels::store_levels(format_of(ask.dtype), ask.stochastic(), ask.count,
                                         &found.levels, &changed);
  TX_CHECK(
      fits, kLevelsOp,
      "level_dtype must hold every level (bfloat16 has the range of float32; or scale x), got ",
      dtype_name(ask.dtype), " for ", found.levels[0]);
  if (changed) {
    const levels::ErrorMeter meter(x, weight, n, found.levels.data(),
                                   static_cast<int64_t>(found.levels.size()));
    const levels::RoundingError e = meter.measure(ask.stochastic());
    found.cost = e.variance + e.bias2;
    found.lower_bound = std::min(found.lower_bound, found.cost);
  }
  return found;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> optimal_levels(
    const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& candidates,
    int64_t count, std::optional<int64_t> dim, std::optional<int64_t> bucket_size,
    std::string objective, std::string method, double rtol, std::string level_dtype) {
  Request ask{parse_objective(objective),
              parse_method(method),
              count,
              rtol,
              parse_level_dtype(level_dtype, x.scalar_type()),
              std::nullopt};
  if (candidates) ask.candidates = read_candidates(*candidates);
  const Tables tables(kLevelsOp, sizes_of(x), dim, bucket_size);
  check_sizes(ask, tables, x);
  const Values values(kLevelsOp, "x", x);
  const Weights weights(kLevelsOp, weight, x);
  // What counts all values notices those that are not finite without a pass of their own.
  const bool counted = !values.f64() && !weight && !candidates && tables.count == 1 &&
                       (count > 1 || !ask.stochastic()) &&
                       levels::counts_values(ask.method, static_cast<size_t>(tables.n), count);
  if (!counted) values.check();
  const LevelResults results(x, tables.shape(dim || bucket_size), count);
  auto* const out = results.found.mutable_data_ptr<double>();
  values.visit([&](const auto* from) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    tables.for_each([&] {
      return [&, own = std::vector<T>(), own_weight = std::vector<double>(),
              scratch = levels::Scratch()](int64_t k) mutable {
        const Solution s = solve_table(ask, tables.group(from, k, &own),
                                       tables.group(weights.data(), k, &own_weight),
                                       tables.values(k), k, &scratch);
        if (!s.finite) values.check();
        const auto last = static_cast<int64_t>(s.levels.size()) - 1;
        for (int64_t i = 0; i < count; ++i)
          out[k * count + i] = s.levels[static_cast<size_t>(std::min(i, last))] + 0.0;
        results.distinct.mutable_data_ptr<int64_t>()[k] = last + 1;
        results.cost.mutable_data_ptr<double>()[k] = s.cost;
        results.lower.mutable_data_ptr<double>()[k] = s.lower_bound;
        results.certified.mutable_data_ptr<bool>()[k] = s.certified;
      };
    });
  });
  return results.stored_as(ask.dtype);
}

/// What the search for levels of one table took: entries evaluated, rounds, most blocks at a time.
Tensor levels_work(const Tensor& x, int64_t count, std::string objective, std::string method) {
  const Request ask{parse_objective(objective), parse_method(method), count, 0, x.scalar_type()};
  check_sizes(ask, Tables(kLevelsOp, sizes_of(x), std::nullopt, std::nullopt), x);
  const Values values(kLevelsOp, "x", x);
  values.check();
  Tensor out = torch::stable::new_empty(x, {3}, ScalarType::Long);
  values.visit([&](const auto* from) {
    levels::Scratch scratch;
    const auto work = solve_table(ask, from, nullptr, x.numel(), 0, &scratch).work;
    auto* const counts = out.mutable_data_ptr<int64_t>();
    counts[0] = work.entries;
    counts[1] = work.rounds;
    counts[2] = work.blocks;
  });
  return out;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_levels_work", TORCH_BOX(&torchext::ops::levels_work));
  m.impl("optimal_levels", TORCH_BOX(&torchext::ops::optimal_levels));
}
