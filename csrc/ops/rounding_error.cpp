// Error of rounding to given levels, per table.
#include "kernels/levels/rounding_error.h"

#include <tuple>

#include "tables.h"

namespace torchext::ops {
namespace {

using levels::ErrorMeter;
using levels::Errors;
using levels::RoundingError;

constexpr const char* kOp = "rounding_error";
constexpr int64_t kPiece = int64_t{1} << 15;

/// One table or one per group, in float64 without their padding.
class GivenLevels {
 public:
  GivenLevels(const Tensor& levels, const Tables& tables) {
    FiniteValues(kOp, "levels", levels).visit([&](const auto* v) {
      values_.assign(v, v + levels.numel());
    });
    width_ = check_level_tables(kOp, levels, tables.count);
    shared_ = levels.dim() == 1;
    for (size_t at = 0; at < values_.size(); at += static_cast<size_t>(width_)) {
      int64_t last = width_ - 1;
      const double* v = values_.data() + at;
      while (last > 0 && v[last - 1] == v[last]) --last;
      for (int64_t i = 1; i <= last; ++i)
        TX_CHECK(v[i - 1] < v[i], kOp, "levels must be ascending, got ", v[i], " at position ", i);
      count_.push_back(last + 1);
    }
  }

  const double* table(int64_t k) const { return values_.data() + (shared_ ? 0 : k * width_); }
  int64_t count(int64_t k) const { return count_[static_cast<size_t>(shared_ ? 0 : k)]; }

 private:
  std::vector<double> values_;
  std::vector<int64_t> count_;
  int64_t width_;
  bool shared_;
};

/// On torch's threads: the sums have no order.
RoundingError measure(const ErrorMeter& meter, bool stochastic, int64_t n) {
  Errors all;
  std::mutex gate;
  parallel_for((n + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end) {
    Errors own;
    meter.add(stochastic, begin * kPiece, std::min(n, end * kPiece), &own);
    const std::lock_guard<std::mutex> lock(gate);
    ErrorMeter::merge(own, &all);
  });
  return meter.result(all);
}

std::tuple<Tensor, Tensor, Tensor> rounding_error(const Tensor& x, const Tensor& levels,
                                                  const std::optional<Tensor>& weight,
                                                  std::optional<int64_t> dim,
                                                  std::optional<int64_t> bucket_size,
                                                  std::string rounding) {
  const FiniteValues values(kOp, "x", x);
  const Tables tables(kOp, sizes_of(x), dim, bucket_size);
  const GivenLevels given(levels, tables);
  const Weights weights(kOp, weight, x);
  const bool stochastic = parse_rounding(kOp, rounding);
  const std::vector<int64_t> shape = tables.shape(dim || bucket_size);
  Tensor variance = torch::stable::new_empty(x, shape, ScalarType::Double);
  Tensor bias2 = torch::stable::new_empty(x, shape, ScalarType::Double);
  Tensor clipped = torch::stable::new_empty(x, shape, ScalarType::Long);
  auto* const v = variance.mutable_data_ptr<double>();
  auto* const b = bias2.mutable_data_ptr<double>();
  auto* const c = clipped.mutable_data_ptr<int64_t>();
  values.visit([&](const auto* from) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    tables.for_each([&] {
      return [&, own = std::vector<T>(), own_weight = std::vector<double>()](int64_t k) mutable {
        const ErrorMeter meter(tables.group(from, k, &own),
                               tables.group(weights.data(), k, &own_weight), tables.values(k),
                               given.table(k), given.count(k));
        const RoundingError e = measure(meter, stochastic, tables.values(k));
        v[k] = e.variance;
        b[k] = e.bias2;
        c[k] = e.clipped;
      };
    });
  });
  return {variance, bias2, clipped};
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("rounding_error", TORCH_BOX(&torchext::ops::rounding_error));
}
