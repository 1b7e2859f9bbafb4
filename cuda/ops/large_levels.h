// optimal_levels of one table that no block of threads holds: by bins of bit patterns, as they are
// under method hist, else ever finer; float64 and weighted values by bins of sorted ones.
#pragma once

#include <array>

#include "device.h"
#include "kernels/levels/exact.h"
#include "kernels/levels/table.h"
#include "ops/levels_request.h"

namespace torchext::ops {

/// What the table is asked for, and where its results go.
class LargeTable {
 public:
  /// Contiguous x, float64 or float32, and weights in float64. Refuses what only the CPU does.
  LargeTable(const Request& ask, const Tables& tables, const Tensor& x,
             const std::optional<Tensor>& weight, const LevelResults& results)
      : x_(x), weight_(weight) {
    const bool f64 = x.scalar_type() == ScalarType::Double, hist = ask.method == Method::hist;
    sorted_ = f64 || weight;
    exact_ = !hist || weight || ask.rtol > 0;
    enough_ = hist && !weight ? ask.rtol : 0;  // hist of weighted values is exact on the CPU, too
    const auto because = [&](const std::string& what) {
      return what + " on CUDA under method " + (hist ? "hist" : "exact") + " above " +
             std::to_string(cuda::kMostTableValues) + " values, got ";
    };
    TX_CHECK(tables.count == 1, kLevelsOp, because("x must be one table"), tables.count, " tables");
    const bool fine = exact_ || f64;
    const int32_t most = fine ? cuda::kMostExactLevels : cuda::kMostHistLevels;
    const char* kind = fine && hist ? " (of float64, with weights or rtol)" : "";
    TX_CHECK(ask.count <= most, kLevelsOp,
             because("levels must be at most " + std::to_string(most) + kind), ask.count);
    TX_CHECK(exact_ || !f64, kLevelsOp, because("x must be float32, bfloat16 or float16"),
             "float64 (exact takes it, hist with rtol too)");
    table_.x = sorted_ ? nullptr : x.const_data_ptr<float>();
    table_.n = tables.n;
    table_.levels = static_cast<int32_t>(ask.count);
    table_.stochastic = ask.stochastic();
    table_.rtol = ask.rtol;
    results.give_to(&table_);
  }

  void solve(const Device& device) {
    if (!exact_) {
      const Tensor work = memory(cuda::hist_work(nullptr, table_.levels).bytes);
      table_.work = cuda::hist_work(work.mutable_data_ptr<uint8_t>(), table_.levels);
      check(cuda::launch_float_bins(table_, device.stream()));
      check(cuda::launch_hist_levels(table_, device.stream()));
      return;
    }
    const int32_t positions = table_.positions();
    const Tensor work = memory(cuda::exact_work(nullptr, positions, sorted_).bytes);
    cuda::ExactLevels p{};
    p.work = cuda::exact_work(work.mutable_data_ptr<uint8_t>(), positions, sorted_);
    p.table = table_;
    p.enough = enough_;
    p.table.work = p.work.hist;
    if (sorted_) {
      solve_sorted(p, device);
    } else {
      check(cuda::launch_float_bins(p.table, device.stream()));
      check(cuda::launch_exact_levels(p, device.stream()));
    }
  }

 private:
  void solve_sorted(cuda::ExactLevels p, const Device& device) const {
    const bool f64 = x_.scalar_type() == ScalarType::Double;
    cuda::SortedValues& v = p.sorted;
    v.x32 = f64 ? nullptr : x_.const_data_ptr<float>();
    v.x64 = f64 ? x_.const_data_ptr<double>() : nullptr;
    v.weight = weight_ ? weight_->const_data_ptr<double>() : nullptr;
    v.n = table_.n;
    const Tensor work = memory(cuda::sorted_work(nullptr, &v));
    cuda::sorted_work(work.mutable_data_ptr<uint8_t>(), &v);
    const Tensor scaled = torch::stable::new_empty(x_, {v.n}, ScalarType::Double);
    v.scaled = scaled.mutable_data_ptr<double>();
    check(cuda::launch_scaled_values(v, device.stream()));
    const auto [values, places] = sort(scaled);
    v.value = values.const_data_ptr<double>();
    v.place = places.const_data_ptr<int64_t>();
    check(cuda::launch_sorted_places(v, device.stream()));
    check(cuda::launch_exact_levels(p, device.stream()));
  }

  /// Ascending values and where they were, by torch.
  static std::pair<Tensor, Tensor> sort(const Tensor& x) {
    using torch::stable::detail::from;
    using torch::stable::detail::to;
    constexpr int64_t kDim = 0;
    std::array<StableIValue, 4> stack{from(x), from(std::optional<bool>(true)), from(kDim),
                                      from(false)};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
    return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
  }

  Tensor memory(int64_t bytes) const {
    return torch::stable::new_empty(x_, {bytes}, ScalarType::Byte);
  }
  static void check(cudaError_t status) { check_launch(kLevelsOp, status); }

  const Tensor& x_;
  const std::optional<Tensor>& weight_;
  bool sorted_, exact_;
  double enough_;
  cuda::HistLevels table_{};
};

}  // namespace torchext::ops
