// What optimal_levels is asked for, and its results: shared by the CPU and the CUDA op.
#pragma once

#include <tuple>

#include "kernels/levels/reference.h"
#include "kernels/levels/solve.h"
#include "kernels/levels/stored.h"
#include "tables.h"

namespace torchext::ops {

using levels::Method;
using levels::Objective;

constexpr const char* kLevelsOp = "optimal_levels";

inline Objective parse_objective(const std::string& name) {
  if (name == "stochastic") return Objective::stochastic;
  TX_CHECK(name == "nearest", kLevelsOp, "objective must be stochastic or nearest, got ", name);
  return Objective::nearest;
}

inline Method parse_method(const std::string& name) {
  if (name == "exact") return Method::exact;
  if (name == "hist") return Method::hist;
  if (name == "adaquant") return Method::adaquant;
  if (name == "dnc") return Method::dnc;
  if (name == "smawk") return Method::smawk;
  TX_CHECK(name == "dp", kLevelsOp, "method must be exact, hist, adaquant, dnc, smawk or dp, got ",
           name);
  return Method::dp;
}

inline ScalarType parse_level_dtype(const std::string& name, ScalarType otherwise) {
  if (name.empty()) return otherwise;
  for (const ScalarType type :
       {ScalarType::Half, ScalarType::BFloat16, ScalarType::Float, ScalarType::Double})
    if (name == dtype_name(type)) return type;
  fail(kLevelsOp, "level_dtype must be float16, bfloat16, float32 or float64, got ", name);
}

inline levels::StoredFormat format_of(ScalarType type) {
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
  std::optional<std::vector<double>> candidates = std::nullopt;

  bool stochastic() const { return objective == Objective::stochastic; }
};

inline void check_sizes(const Request& ask, const Tables& tables, const Tensor& x) {
  check_range(kLevelsOp, "levels", ask.count, 1, 65536);
  TX_CHECK(ask.method != Method::adaquant || ask.stochastic(), kLevelsOp,
           "method adaquant must have objective stochastic, got nearest");
  TX_CHECK(ask.method == Method::exact || !ask.candidates, kLevelsOp,
           "method must be exact when candidates are given");
  TX_CHECK(ask.rtol >= 0 && ask.rtol < 1, kLevelsOp, "rtol must be in [0, 1), got ", ask.rtol);
  if (tables.count == 0) return;
  const auto most = [&](size_t values, const char* why) {
    TX_CHECK(tables.largest() <= static_cast<int64_t>(values), kLevelsOp, "x must hold at most ",
             values, " values per table", why, ", got ", tables.largest());
  };
  TX_CHECK(tables.n > 0, kLevelsOp, "x must hold at least one value per table, got shape ",
           shape_text(x));
  most(levels::kMostValues, "");
  if (ask.method == Method::dp) most(levels::kReferenceItems, " under method dp");
}

/// The tensors that the op returns, levels in float64 at first.
struct LevelResults {
  Tensor found, distinct, cost, lower, certified;

  /// `shape` has one entry per table; on the device of x.
  LevelResults(const Tensor& x, const std::vector<int64_t>& shape, int64_t count)
      : found(torch::stable::new_empty(x, with(shape, count), ScalarType::Double)),
        distinct(torch::stable::new_empty(x, shape, ScalarType::Long)),
        cost(torch::stable::new_empty(x, shape, ScalarType::Double)),
        lower(torch::stable::new_empty(x, shape, ScalarType::Double)),
        certified(torch::stable::new_empty(x, shape, ScalarType::Bool)) {}

  /// Tells the parameters of a kernel where the results go.
  template <class Params>
  void give_to(Params* p) const {
    p->found = found.mutable_data_ptr<double>();
    p->distinct = distinct.mutable_data_ptr<int64_t>();
    p->cost = cost.mutable_data_ptr<double>();
    p->lower = lower.mutable_data_ptr<double>();
    p->certified = certified.mutable_data_ptr<bool>();
  }

  /// Levels that `dtype` holds exactly.
  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> stored_as(ScalarType dtype) const {
    return {torch::stable::to(found, dtype), distinct, cost, lower, certified};
  }

 private:
  static std::vector<int64_t> with(std::vector<int64_t> shape, int64_t last) {
    shape.push_back(last);
    return shape;
  }
};

}  // namespace torchext::ops
