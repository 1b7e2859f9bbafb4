// What rounding to given levels does to values: variance, squared bias, and how many are clamped.
#pragma once

#include <cstdint>
#include <vector>

#include "error.h"
#include "interval.h"

namespace torchext::levels {

struct RoundingError {
  double variance, bias2;
  int64_t clipped;
};

/// Measures one table on one set of values. Any order of the values, any split over threads and
/// every instruction set give the same bits.
class ErrorMeter {
 public:
  /// Finite x [n], weights not negative and finite (null: 1 each), finite strictly ascending levels
  /// [count], count >= 1. x and weight must outlive the meter.
  template <class T>
  ErrorMeter(const T* x, const double* weight, int64_t n, const double* levels, int64_t count);

  /// Adds values [begin, end) to `sums`.
  void add(bool stochastic, int64_t begin, int64_t end, Errors* sums) const noexcept {
    add_errors()(values_, {level_.data(), rung_.data(), width_}, stochastic, begin, end, sums);
  }
  static void merge(const Errors& from, Errors* into) noexcept;

  RoundingError result(const Errors& sums) const;

  /// All values on this thread.
  RoundingError measure(bool stochastic) const;

 private:
  WeightedValues values_;
  int64_t n_, width_ = 1;
  int power_ = 0, weight_power_ = 0;  // of two: what `values_` was divided by
  std::vector<double> level_, rung_;
};

}  // namespace torchext::levels
