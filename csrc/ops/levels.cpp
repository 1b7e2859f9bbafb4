// Optimal quantization levels: checks, one table after another on torch's threads.
#include <tuple>

#include "kernels/levels/candidates.h"
#include "kernels/levels/reference.h"
#include "kernels/levels/rounding_error.h"
#include "kernels/levels/solve.h"
#include "kernels/levels/stored.h"
#include "tables.h"

namespace torchext::ops {
namespace {

using levels::Method;
using levels::Objective;
using levels::Solution;

constexpr const char* kOp = "optimal_levels";

Objective parse_objective(const std::string& name) {
  if (name == "stochastic") return Objective::stochastic;
  TX_CHECK(name == "nearest", kOp, "objective must be stochastic or nearest, got ", name);
  return Objective::nearest;
}

Method parse_method(const std::string& name) {
  if (name == "exact") return Method::exact;
  if (name == "hist") return Method::hist;
  if (name == "adaquant") return Method::adaquant;
  if (name == "dnc") return Method::dnc;
  if (name == "smawk") return Method::smawk;
  TX_CHECK(name == "dp", kOp, "method must be exact, hist, adaquant, dnc, smawk or dp, got ", name);
  return Method::dp;
}

ScalarType parse_level_dtype(const std::string& name, ScalarType otherwise) {
  if (name.empty()) return otherwise;
  for (const ScalarType type :
       {ScalarType::Half, ScalarType::BFloat16, ScalarType::Float, ScalarType::Double})
    if (name == dtype_name(type)) return type;
  fail(kOp, "level_dtype must be float16, bfloat16, float32 or float64, got ", name);
}

levels::StoredFormat format_of(ScalarType type) {
  switch (type) {
    case ScalarType::Half: return levels::kFloat16;
    case ScalarType::BFloat16: return levels::kBFloat16;
    case ScalarType::Float: return levels::kFloat32;
    default: return levels::kFloat64;
  }
}

/// What one table is asked for.
struct Request {
  Objective objective;
  Method method;
  int64_t count;
  double rtol;
  ScalarType dtype;
  std::optional<std::vector<double>> candidates;

  bool stochastic() const { return objective == Objective::stochastic; }
};

std::vector<double> read_candidates(const Tensor& candidates) {
  TX_CHECK(candidates.dim() == 1 && candidates.numel() > 0, kOp,
           "candidates must have shape (candidates,) with at least one, got ",
           shape_text(candidates));
  std::vector<double> values;
  FiniteValues(kOp, "candidates", candidates).visit([&](const auto* v) {
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
  TX_CHECK(sum > 0 && std::isfinite(sum), kOp, "weight must have a positive, finite sum, got ", sum,
           " for table ", table);
  return {lo, hi};
}

template <class T>
Solution solve_table(const Request& ask, const T* x, const double* weight, int64_t n, int64_t table,
                     levels::Scratch* scratch) {
  const auto size = static_cast<size_t>(n);
  if (weight != nullptr || ask.candidates || (ask.stochastic() && ask.count == 1)) {
    const auto [lo, hi] = range_of(x, weight, n, table);
    TX_CHECK(!ask.stochastic() || ask.count > 1 || (lo == hi && !ask.candidates), kOp,
             "levels must be in [2, 65536] where values differ or candidates are given, got 1");
    TX_CHECK(!ask.candidates || !ask.stochastic() ||
                 (ask.candidates->front() <= lo && hi <= ask.candidates->back()),
             kOp, "candidates must cover the values from ", lo, " to ", hi, ", got ",
             ask.candidates->front(), " to ", ask.candidates->back());
  }
  Solution found =
      ask.candidates
          ? levels::solve_among(x, weight, size, ask.objective, ask.count, *ask.candidates)
          : levels::solve(x, weight, size, ask.objective, ask.method, ask.count, scratch, ask.rtol);
  const double gap = found.cost - found.lower_bound;
  found.certified = found.certified || (ask.rtol > 0 && gap <= ask.rtol * found.cost);
  bool changed;
  const bool fits = levels::store_levels(format_of(ask.dtype), ask.stochastic(), ask.count,
                                         &found.levels, &changed);
  TX_CHECK(
      fits, kOp,
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

void check_sizes(const Request& ask, const Tables& tables, const Tensor& x) {
  check_range(kOp, "levels", ask.count, 1, 65536);
  TX_CHECK(ask.method != Method::adaquant || ask.stochastic(), kOp,
           "method adaquant must have objective stochastic, got nearest");
  TX_CHECK(ask.method == Method::exact || !ask.candidates, kOp,
           "method must be exact when candidates are given");
  TX_CHECK(ask.rtol >= 0 && ask.rtol < 1, kOp, "rtol must be in [0, 1), got ", ask.rtol);
  if (tables.count == 0) return;
  const auto most = [&](size_t values, const char* why) {
    TX_CHECK(tables.largest() <= static_cast<int64_t>(values), kOp, "x must hold at most ", values,
             " values per table", why, ", got ", tables.largest());
  };
  TX_CHECK(tables.n > 0, kOp, "x must hold at least one value per table, got shape ",
           shape_text(x));
  most(levels::kMostValues, "");
  if (ask.method == Method::dp) most(levels::kReferenceItems, " under method dp");
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
  const Tables tables(kOp, sizes_of(x), dim, bucket_size);
  check_sizes(ask, tables, x);
  const FiniteValues values(kOp, "x", x);
  const Weights weights(kOp, weight, x);
  const std::vector<int64_t> shape = tables.shape(dim || bucket_size);
  std::vector<int64_t> rows = shape;
  rows.push_back(count);
  Tensor found = torch::stable::new_empty(x, rows, ScalarType::Double);
  Tensor distinct = torch::stable::new_empty(x, shape, ScalarType::Long);
  Tensor cost = torch::stable::new_empty(x, shape, ScalarType::Double);
  Tensor lower = torch::stable::new_empty(x, shape, ScalarType::Double);
  Tensor certified = torch::stable::new_empty(x, shape, ScalarType::Bool);
  auto* const out = found.mutable_data_ptr<double>();
  values.visit([&](const auto* from) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    tables.for_each([&] {
      return [&, own = std::vector<T>(), own_weight = std::vector<double>(),
              scratch = levels::Scratch()](int64_t k) mutable {
        const Solution s = solve_table(ask, tables.group(from, k, &own),
                                       tables.group(weights.data(), k, &own_weight),
                                       tables.values(k), k, &scratch);
        const auto last = static_cast<int64_t>(s.levels.size()) - 1;
        for (int64_t i = 0; i < count; ++i)
          out[k * count + i] = s.levels[static_cast<size_t>(std::min(i, last))] + 0.0;
        distinct.mutable_data_ptr<int64_t>()[k] = last + 1;
        cost.mutable_data_ptr<double>()[k] = s.cost;
        lower.mutable_data_ptr<double>()[k] = s.lower_bound;
        certified.mutable_data_ptr<bool>()[k] = s.certified;
      };
    });
  });
  return {torch::stable::to(found, ask.dtype), distinct, cost, lower, certified};  // exact
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("optimal_levels", TORCH_BOX(&torchext::ops::optimal_levels));
}
