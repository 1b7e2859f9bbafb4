// optimal_levels on CUDA: tables that a block of threads holds, and one larger one by its bins.
#include "kernels/levels/exact.h"
#include "kernels/levels/store.h"
#include "kernels/levels/table.h"
#include "level_errors.h"
#include "ops/levels_request.h"

namespace torchext::ops {
namespace {

// Bytes of workspace, unless one block needs more: as much as stays in the second-level cache.
constexpr int64_t kMostWork = int64_t{3} << 24;
constexpr int64_t kMostBlocks = 4096;

/// Whether a type has all values of another: levels that are values need no rounding then.
bool holds(ScalarType wide, ScalarType narrow) {
  if (wide == narrow || wide == ScalarType::Double) return true;
  return wide == ScalarType::Float && narrow != ScalarType::Double;
}

/// What only the CPU does so far.
void check_supported(const Request& ask, bool candidates, const std::string& method) {
  TX_CHECK(ask.method == Method::exact || ask.method == Method::dnc || ask.method == Method::hist,
           kLevelsOp, "method must be exact, dnc or hist on CUDA, got ", method);
  TX_CHECK(!candidates, kLevelsOp, "candidates must be None on CUDA, got a tensor");
  TX_CHECK(ask.count >= 2 || !ask.stochastic(), kLevelsOp,
           "levels must be in [2, 65536] on CUDA, got ", ask.count);
}

/// Tables that a block of threads holds; also under method hist, which is exact for few values.
void solve_tables(const Request& ask, const Tables& tables, const Tensor& values,
                  const std::optional<Tensor>& weight, const LevelResults& results,
                  const Device& device) {
  const bool f64 = values.scalar_type() == ScalarType::Double;
  cuda::LevelTables p{};
  p.x32 = f64 ? nullptr : values.const_data_ptr<float>();
  p.x64 = f64 ? values.const_data_ptr<double>() : nullptr;
  p.weight = weight ? weight->const_data_ptr<double>() : nullptr;
  p.outer = tables.outer;
  p.count = tables.count;
  p.inner = tables.inner;
  p.n = tables.n;
  p.levels = static_cast<int32_t>(ask.count);
  p.stochastic = ask.stochastic();
  p.rtol = ask.rtol;
  p.found = results.found.mutable_data_ptr<double>();
  p.distinct = results.distinct.mutable_data_ptr<int64_t>();
  p.cost = results.cost.mutable_data_ptr<double>();
  p.lower = results.lower.mutable_data_ptr<double>();
  p.certified = results.certified.mutable_data_ptr<bool>();
  const int64_t each = cuda::level_tables_work(p);
  p.blocks = std::min({p.count, kMostBlocks, std::max<int64_t>(1, kMostWork / each)});
  const Tensor work = torch::stable::new_empty(values, {p.blocks * each}, ScalarType::Byte);
  p.work = work.mutable_data_ptr<uint8_t>();
  check_launch(kLevelsOp, cuda::launch_level_tables(p, device.stream()));
}

/// One table of more values, by its bins: as they are under method hist, else ever finer.
void solve_bins(const Request& ask, const Tables& tables, const Tensor& values, bool weight,
                const LevelResults& results, const Device& device) {
  const bool exact = ask.method != Method::hist;
  const int32_t most = exact ? cuda::kMostExactLevels : cuda::kMostHistLevels;
  const auto because = [exact](const std::string& what) {
    return what + " on CUDA under method " + (exact ? "exact" : "hist") + " above " +
           std::to_string(cuda::kMostTableValues) + " values, got ";
  };
  TX_CHECK(tables.count == 1, kLevelsOp, because("x must be one table"), tables.count, " tables");
  TX_CHECK(values.scalar_type() == ScalarType::Float, kLevelsOp,
           because("x must be float32, bfloat16 or float16"), "float64");
  TX_CHECK(!weight, kLevelsOp, because("weight must be None"), "a tensor");
  TX_CHECK(!exact || ask.stochastic(), kLevelsOp, because("objective must be stochastic"),
           "nearest");
  TX_CHECK(exact || ask.rtol == 0, kLevelsOp, because("rtol must be 0"), ask.rtol);
  TX_CHECK(ask.count <= most, kLevelsOp, because("levels must be at most " + std::to_string(most)),
           ask.count);
  const auto levels = static_cast<int32_t>(ask.count);
  const int64_t bytes =
      exact ? cuda::exact_work(nullptr, levels).bytes : cuda::hist_work(nullptr, levels).bytes;
  const Tensor work = torch::stable::new_empty(values, {bytes}, ScalarType::Byte);
  auto* const memory = work.mutable_data_ptr<uint8_t>();
  cuda::ExactLevels p{};
  if (exact) p.work = cuda::exact_work(memory, levels);
  p.table = {values.const_data_ptr<float>(),
             tables.n,
             levels,
             ask.stochastic(),
             ask.rtol,
             results.found.mutable_data_ptr<double>(),
             results.distinct.mutable_data_ptr<int64_t>(),
             results.cost.mutable_data_ptr<double>(),
             results.lower.mutable_data_ptr<double>(),
             results.certified.mutable_data_ptr<bool>(),
             exact ? p.work.hist : cuda::hist_work(memory, levels)};
  check_launch(kLevelsOp, cuda::launch_float_bins(p.table, device.stream()));
  check_launch(kLevelsOp, exact ? cuda::launch_exact_levels(p, device.stream())
                                : cuda::launch_hist_levels(p.table, device.stream()));
}

/// Whether levels may have to be rounded: means, values of a wider type, and starts of bins. Bins
/// of float16 values below 0 need not start at one; those of bfloat16 are single values.
bool needs_rounding(const Request& ask, ScalarType values, bool bins) {
  if (ask.dtype == ScalarType::Double) return false;
  const bool starts = bins && ask.method == Method::hist && ask.dtype == ScalarType::Half;
  return !ask.stochastic() || starts || !holds(ask.dtype, values);
}

/// Rounds the levels found to the type that they are stored in; where one moves, the cost is that
/// of the stored ones.
Tensor store_levels(const Request& ask, const Tables& tables, const Tensor& values,
                    const std::optional<Tensor>& weight, const LevelResults& results,
                    const Device& device) {
  const Tensor stored = torch::stable::empty_like(results.found);
  const Tensor moved = torch::stable::new_empty(values, {tables.count}, ScalarType::Bool);
  const cuda::StoreLevels p{tables.count,
                            static_cast<int32_t>(ask.count),
                            format_of(ask.dtype),
                            ask.stochastic(),
                            results.found.const_data_ptr<double>(),
                            stored.mutable_data_ptr<double>(),
                            moved.mutable_data_ptr<bool>(),
                            results.distinct.mutable_data_ptr<int64_t>(),
                            results.cost.mutable_data_ptr<double>(),
                            results.lower.mutable_data_ptr<double>(),
                            results.certified.mutable_data_ptr<bool>()};
  check_launch(kLevelsOp, cuda::launch_store_levels(p, device.stream()));
  const LevelErrors errors(kLevelsOp, device, values,
                           weight ? weight->const_data_ptr<double>() : nullptr, tables,
                           {tables.count}, stored, ask.count, false, ask.stochastic());
  check_launch(kLevelsOp,
               cuda::launch_stored_costs(p, errors.variance.const_data_ptr<double>(),
                                         errors.bias2.const_data_ptr<double>(), device.stream()));
  return stored;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> optimal_levels_cuda(
    const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& candidates,
    int64_t count, std::optional<int64_t> dim, std::optional<int64_t> bucket_size,
    std::string objective, std::string method, double rtol, std::string level_dtype) {
  const Request ask{parse_objective(objective), parse_method(method), count, rtol,
                    parse_level_dtype(level_dtype, x.scalar_type())};
  const Tables tables(kLevelsOp, sizes_of(x), dim, bucket_size);
  check_sizes(ask, tables, x);
  check_supported(ask, candidates.has_value(), method);
  const bool fits = tables.count == 0 || tables.largest() <= cuda::kMostTableValues;
  TX_CHECK(fits || ask.method != Method::dnc, kLevelsOp, "x must hold at most ",
           cuda::kMostTableValues, " values per table on CUDA under method dnc, got ",
           tables.largest(), " (exact and hist take more)");
  const Device device(x);
  if (weight) device.check(kLevelsOp, "weight", *weight);
  const bool f64 = x.scalar_type() == ScalarType::Double;
  const Tensor values = f64 ? torch::stable::contiguous(x) : as_float(kLevelsOp, "x", x);
  const std::optional<Tensor> dense = dense_weight(kLevelsOp, weight, x);
  LevelResults results(x, tables.shape(dim || bucket_size), count);
  if (fits) {
    solve_tables(ask, tables, values, dense, results, device);
  } else {
    solve_bins(ask, tables, values, dense.has_value(), results, device);
  }
  if (needs_rounding(ask, x.scalar_type(), !fits))
    results.found = store_levels(ask, tables, values, dense, results, device);
  return results.stored_as(ask.dtype);
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) { m.impl("optimal_levels", TORCH_BOX(&torchext::ops::optimal_levels_cuda)); }
