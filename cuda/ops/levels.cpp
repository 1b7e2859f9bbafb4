// optimal_levels on CUDA: tables that a block of threads holds, and one larger one.
#include "kernels/levels/among.h"
#include "kernels/levels/store.h"
#include "kernels/levels/table.h"
#include "large_levels.h"
#include "level_errors.h"

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
void check_supported(const Request& ask, const Tables& tables, bool candidates, bool fits,
                     const std::string& method) {
  TX_CHECK(ask.method == Method::exact || ask.method == Method::dnc || ask.method == Method::hist,
           kLevelsOp, "method must be exact, dnc or hist on CUDA, got ", method);
  TX_CHECK(ask.method == Method::exact || !candidates, kLevelsOp,
           "method must be exact when candidates are given, got ", method);
  TX_CHECK(fits || (ask.method != Method::dnc && !candidates), kLevelsOp, "x must hold at most ",
           cuda::kMostTableValues, " values per table on CUDA ",
           candidates ? "with candidates" : "under method dnc", ", got ", tables.largest(),
           candidates ? " (the CPU takes more: x.cpu())" : " (exact and hist take more)");
  TX_CHECK(ask.count >= 2 || !ask.stochastic(), kLevelsOp,
           "levels must be in [2, 65536] on CUDA, got ", ask.count);
}

/// Tables that a block of threads holds.
cuda::LevelTables level_tables(const Request& ask, const Tables& tables, const Tensor& values,
                               const std::optional<Tensor>& weight, const LevelResults& results) {
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
  results.give_to(&p);
  return p;
}

/// Memory for as many blocks as are of use, `each` bytes a block.
Tensor work_of_blocks(const Tensor& like, int64_t each, cuda::LevelTables* p) {
  p->blocks = std::min({p->count, kMostBlocks, std::max<int64_t>(1, kMostWork / each)});
  Tensor work = torch::stable::new_empty(like, {p->blocks * each}, ScalarType::Byte);
  p->work = work.mutable_data_ptr<uint8_t>();
  return work;
}

/// Also under method hist, which is exact for few values.
void solve_tables(cuda::LevelTables p, const Tensor& values, const Device& device) {
  const Tensor work = work_of_blocks(values, cuda::level_tables_work(p), &p);
  check_launch(kLevelsOp, cuda::launch_level_tables(p, device.stream()));
}

/// Candidates as contiguous float64.
Tensor dense_candidates(const Tensor& candidates, const Device& device) {
  TX_CHECK(candidates.dim() == 1 && candidates.numel() > 0 &&
               candidates.numel() <= cuda::kMostCandidates,
           kLevelsOp, "candidates must have shape (candidates,) with 1 to ", cuda::kMostCandidates,
           " on CUDA, got ", shape_text(candidates));
  device.check(kLevelsOp, "candidates", candidates);
  const bool f64 = candidates.scalar_type() == ScalarType::Double;
  return f64 ? torch::stable::contiguous(candidates)
             : torch::stable::to(as_float(kLevelsOp, "candidates", candidates), ScalarType::Double);
}

/// Levels among candidates [candidates] in float64; what they cost is measured.
void solve_among(const cuda::LevelTables& tables, const Tables& groups, const Tensor& values,
                 const Tensor& candidates, const LevelResults& results, const Device& device) {
  cuda::LevelsAmong p{tables, {}};
  p.from.given = candidates.const_data_ptr<double>();
  p.from.size = candidates.numel();
  const int64_t capacity = p.from.capacity();
  const Tensor lists = torch::stable::new_empty(values, {2 * capacity}, ScalarType::Double);
  const Tensor count = torch::stable::new_empty(values, {1}, ScalarType::Int);
  p.from.sorted = lists.mutable_data_ptr<double>();
  p.from.distinct = p.from.sorted + capacity;
  p.from.count = count.mutable_data_ptr<int32_t>();
  const Tensor work = work_of_blocks(values, cuda::levels_among_work(p), &p.tables);
  check_launch(kLevelsOp, cuda::launch_candidates(p.from, device.stream()));
  check_launch(kLevelsOp, cuda::launch_levels_among(p, device.stream()));
  const LevelErrors errors(kLevelsOp, device, values, tables.weight, groups, {tables.count},
                           results.found, tables.levels, false, tables.stochastic);
  check_launch(kLevelsOp,
               cuda::launch_costs_among(tables, errors.variance.const_data_ptr<double>(),
                                        errors.bias2.const_data_ptr<double>(), device.stream()));
}

/// Whether levels may have to be rounded: means, values or candidates of a wider type, and starts
/// of bins. Bins of float16 values below 0 need not start at one; those of bfloat16 are single
/// values.
bool needs_rounding(const Request& ask, ScalarType values, const std::optional<Tensor>& candidates,
                    bool bins) {
  if (ask.dtype == ScalarType::Double) return false;
  if (candidates) return !holds(ask.dtype, candidates->scalar_type());
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
  const bool fits = tables.count == 0 || tables.largest() <= cuda::kMostTableValues;
  check_supported(ask, tables, candidates.has_value(), fits, method);
  const Device device(x);
  if (weight) device.check(kLevelsOp, "weight", *weight);
  const bool f64 = x.scalar_type() == ScalarType::Double;
  const Tensor values = f64 ? torch::stable::contiguous(x) : as_float(kLevelsOp, "x", x);
  const std::optional<Tensor> dense = dense_weight(kLevelsOp, weight, x);
  LevelResults results(x, tables.shape(dim || bucket_size), count);
  if (candidates) {
    solve_among(level_tables(ask, tables, values, dense, results), tables, values,
                dense_candidates(*candidates, device), results, device);
  } else if (fits) {
    solve_tables(level_tables(ask, tables, values, dense, results), values, device);
  } else {
    LargeTable(ask, tables, values, dense, results).solve(device);
  }
  if (needs_rounding(ask, x.scalar_type(), candidates, !fits))
    results.found = store_levels(ask, tables, values, dense, results, device);
  return results.stored_as(ask.dtype);
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) { m.impl("optimal_levels", TORCH_BOX(&torchext::ops::optimal_levels_cuda)); }
