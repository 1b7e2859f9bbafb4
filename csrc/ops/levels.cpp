// Optimal quantization levels: checks, one table after another on torch's threads.
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>
#include <tuple>
#include <type_traits>

#include "kernels/levels/reference.h"
#include "kernels/levels/solve.h"
#include "quantize_format.h"

namespace torchext::ops {
namespace {

using levels::Method;
using levels::Objective;

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

template <class T>
void check_finite(const char* name, const T* x, int64_t n) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr Bits kExponent =
      sizeof(T) == 4 ? Bits{0x7F800000u} : static_cast<Bits>(0x7FF0000000000000ull);
  constexpr int64_t kChunk = 4096;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = std::min(n, begin + kChunk);
    Bits bad = 0;  // integers: a sum of floating-point tests would be one long chain
    for (int64_t i = begin; i < end; ++i) {
      Bits u;
      std::memcpy(&u, x + i, sizeof u);
      bad |= static_cast<Bits>((u & kExponent) == kExponent);
    }
    for (int64_t i = begin; bad != 0 && i < end; ++i)
      TX_CHECK(std::isfinite(x[i]), kOp, name, " must be finite, got ", x[i], " at element ", i);
  }
}

/// The tables: index `dim` picks one, or there is one.
struct Tables {
  int64_t outer, count, inner;

  int64_t values() const { return outer * inner; }

  template <class T>
  void gather(const T* x, int64_t table, T* out) const {
    for (int64_t o = 0; o < outer; ++o) {
      const T* from = x + (o * count + table) * inner;
      for (int64_t i = 0; i < inner; ++i) *out++ = from[i];
    }
  }
};

struct Results {
  double *cost, *lower;
  bool* certified;
};

template <class T>
void run(const Tensor& x, const double* weight, const Tables& tables, Objective objective,
         Method method, int64_t count, T* levels_out, const Results& out) {
  const auto* values = x.const_data_ptr<T>();
  const auto n = static_cast<size_t>(tables.values());
  std::mutex gate;
  std::exception_ptr failure;  // a body of parallel_for must not throw
  parallel_for(
      tables.count, std::max<int64_t>(1, (int64_t{1} << 13) / tables.values()),
      [&](int64_t begin, int64_t end) {
        try {
          levels::Scratch scratch;
          std::vector<T> own;
          std::vector<double> own_weight;
          for (int64_t k = begin; k < end; ++k) {
            const T* from = values;
            const double* w = weight;
            if (tables.count > 1) {
              own.resize(n);
              tables.gather(values, k, own.data());
              from = own.data();
              if (weight != nullptr) {
                own_weight.resize(n);
                tables.gather(weight, k, own_weight.data());
                w = own_weight.data();
              }
            }
            const levels::Solution found =
                levels::solve(from, w, n, objective, method, count, &scratch);
            T* row = levels_out + k * count;
            for (int64_t i = 0; i < count; ++i) {
              const auto last = static_cast<int64_t>(found.levels.size()) - 1;
              row[i] = static_cast<T>(found.levels[static_cast<size_t>(std::min(i, last))]) + T(0);
            }
            out.cost[k] = found.cost;
            out.lower[k] = found.lower_bound;
            out.certified[k] = found.certified;
          }
        } catch (...) {
          const std::lock_guard<std::mutex> lock(gate);
          failure = std::current_exception();
        }
      });
  if (failure) std::rethrow_exception(failure);
}

/// Every table needs some weight, and dp few enough distinct values.
void check_weights(const double* weight, const Tables& tables) {
  std::vector<double> own(static_cast<size_t>(tables.values()));
  for (int64_t k = 0; k < tables.count; ++k) {
    tables.gather(weight, k, own.data());
    double sum = 0;
    for (const double w : own) sum += w;
    TX_CHECK(sum > 0 && std::isfinite(sum), kOp, "weight must have a positive, finite sum, got ",
             sum, " for table ", k);
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> optimal_levels(const Tensor& x,
                                                          const std::optional<Tensor>& weight,
                                                          int64_t count, std::optional<int64_t> dim,
                                                          std::string objective_name,
                                                          std::string method_name) {
  const bool f64 = x.scalar_type() == ScalarType::Double;
  const Tensor in = f64 ? torch::stable::contiguous(x) : as_float(kOp, "x", x);
  const Objective objective = parse_objective(objective_name);
  const Method method = parse_method(method_name);
  check_range(kOp, "levels", count, objective == Objective::stochastic ? 2 : 1, 65536);
  TX_CHECK(method != Method::adaquant || objective == Objective::stochastic, kOp,
           "method adaquant must have objective stochastic, got nearest");
  const std::vector<int64_t> sizes = sizes_of(x);
  const Channels channels = channels_of(kOp, sizes, dim, std::nullopt);
  const int64_t n = x.numel();
  const Tables tables{channels.count > 0 ? n / (channels.count * channels.inner) : 0,
                      channels.count, channels.inner};
  TX_CHECK(channels.count == 0 || n > 0, kOp,
           "x must hold at least one value per table, got shape ", shape_text(x));
  TX_CHECK(channels.count == 0 || tables.values() <= static_cast<int64_t>(levels::kMostValues), kOp,
           "x must hold at most ", levels::kMostValues, " values per table, got ", tables.values());
  TX_CHECK(method != Method::dp || channels.count == 0 ||
               tables.values() <= static_cast<int64_t>(levels::kReferenceItems),
           kOp, "x must hold at most ", levels::kReferenceItems,
           " values per table under method dp, got ", tables.values());
  if (f64) {
    check_finite("x", in.const_data_ptr<double>(), n);
  } else {
    check_finite("x", in.const_data_ptr<float>(), n);
  }
  Tensor dense;
  const double* w = nullptr;
  if (weight) {
    const std::vector<int64_t> given = sizes_of(*weight);
    TX_CHECK(given == sizes, kOp, "weight must have shape ", shape_text(x), ", got ",
             shape_text(*weight));
    const ScalarType type = weight->scalar_type();
    TX_CHECK(type == ScalarType::Double || type == ScalarType::Float, kOp,
             "weight must be float32 or float64, got ", dtype_name(type));
    dense = torch::stable::to(torch::stable::contiguous(*weight), ScalarType::Double);
    w = dense.const_data_ptr<double>();
    check_finite("weight", w, n);
    for (int64_t i = 0; i < n; ++i)
      TX_CHECK(w[i] >= 0, kOp, "weight must not be negative, got ", w[i], " at element ", i);
    check_weights(w, tables);
  }
  std::vector<int64_t> one;
  if (dim) one.push_back(channels.count);
  std::vector<int64_t> rows = one;
  rows.push_back(count);
  Tensor found = torch::stable::new_empty(x, rows, f64 ? ScalarType::Double : ScalarType::Float);
  Tensor cost = torch::stable::new_empty(x, one, ScalarType::Double);
  Tensor lower = torch::stable::new_empty(x, one, ScalarType::Double);
  Tensor certified = torch::stable::new_empty(x, one, ScalarType::Bool);
  const Results results{cost.mutable_data_ptr<double>(), lower.mutable_data_ptr<double>(),
                        certified.mutable_data_ptr<bool>()};
  if (channels.count > 0) {
    if (f64) {
      run<double>(in, w, tables, objective, method, count, found.mutable_data_ptr<double>(),
                  results);
    } else {
      run<float>(in, w, tables, objective, method, count, found.mutable_data_ptr<float>(), results);
    }
  }
  return {found, cost, lower, certified};
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("optimal_levels", TORCH_BOX(&torchext::ops::optimal_levels));
}
