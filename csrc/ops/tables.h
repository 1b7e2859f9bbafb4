// Values in groups that have a table of levels each: all, the indices of a dimension, or buckets.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>
#include <type_traits>

#include "quantize_format.h"

namespace torchext::ops {

/// Group k of a contiguous tensor is [.., k, ..] of (outer, count, inner); the last bucket may be
/// shorter.
struct Tables {
  int64_t outer, count, inner, n;

  Tables(const char* op, const std::vector<int64_t>& sizes, std::optional<int64_t> dim,
         std::optional<int64_t> bucket_size)
      : outer(1) {
    const Channels channels = channels_of(op, sizes, dim, bucket_size, 1);
    count = channels.count;
    inner = channels.inner;
    n = 1;
    for (const int64_t size : sizes) n *= size;
    if (dim) outer = count > 0 ? n / (count * inner) : 0;
    if (!dim && !bucket_size) inner = n;
  }

  int64_t largest() const { return std::min(outer * inner, n); }
  int64_t values(int64_t k) const {
    return outer == 1 ? std::min(inner, n - k * inner) : outer * inner;
  }

  /// The values of group k: where they are, or copied to `own`.
  template <class T>
  const T* group(const T* x, int64_t k, std::vector<T>* own) const {
    if (x == nullptr || outer == 1) return x == nullptr ? x : x + k * inner;
    own->resize(static_cast<size_t>(values(k)));
    T* out = own->data();
    for (int64_t o = 0; o < outer; ++o) out = std::copy_n(x + (o * count + k) * inner, inner, out);
    return own->data();
  }

  /// Sizes of a result with one entry per group: none without groups.
  std::vector<int64_t> shape(bool grouped) const {
    return grouped ? std::vector<int64_t>{count} : std::vector<int64_t>{};
  }

  /// work(k) for every group, on torch's threads; what it throws is thrown again.
  template <class Work>
  void for_each(const Work& make) const {
    std::mutex gate;
    std::exception_ptr failure;  // a body of parallel_for must not throw
    const int64_t grain =
        std::max<int64_t>(1, (int64_t{1} << 13) / std::max<int64_t>(1, largest()));
    parallel_for(count, grain, [&](int64_t begin, int64_t end) {
      try {
        auto work = make();
        for (int64_t k = begin; k < end; ++k) work(k);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(gate);
        failure = std::current_exception();
      }
    });
    if (failure) std::rethrow_exception(failure);
  }
};

/// Levels in a table, one for all groups or one each: (levels,) or (tables, levels).
inline int64_t check_level_tables(const char* op, const Tensor& levels, int64_t tables) {
  TX_CHECK(levels.dim() == 1 || (levels.dim() == 2 && levels.sizes()[0] == tables), op,
           "levels must have shape (levels,) or (", tables, ", levels), got ", shape_text(levels));
  const int64_t width = levels.sizes()[static_cast<size_t>(levels.dim() - 1)];
  TX_CHECK(width >= 1, op, "levels must hold at least one level, got shape ", shape_text(levels));
  return width;
}

template <class T>
void check_finite(const char* op, const char* name, const T* x, int64_t n) {
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
      TX_CHECK(std::isfinite(x[i]), op, name, " must be finite, got ", x[i], " at element ", i);
  }
}

/// A contiguous float64 or float32 tensor; half precision is widened.
class Values {
 public:
  Values(const char* op, const char* name, const Tensor& x)
      : op_(op),
        name_(name),
        dense_(x.scalar_type() == ScalarType::Double ? torch::stable::contiguous(x)
                                                     : as_float(op, name, x)) {}

  /// Refuses the first value that is not finite.
  void check() const {
    visit([&](const auto* values) { check_finite(op_, name_, values, dense_.numel()); });
  }

  bool f64() const { return dense_.scalar_type() == ScalarType::Double; }

  template <class Body>
  void visit(const Body& body) const {
    if (f64()) {
      body(dense_.const_data_ptr<double>());
    } else {
      body(dense_.const_data_ptr<float>());
    }
  }

 private:
  const char *op_, *name_;
  Tensor dense_;
};

/// Values all of which are finite.
class FiniteValues : public Values {
 public:
  FiniteValues(const char* op, const char* name, const Tensor& x) : Values(op, name, x) { check(); }
};

/// Weights of the shape of x as contiguous float64, on their device; their values are not looked
/// at.
inline std::optional<Tensor> dense_weight(const char* op, const std::optional<Tensor>& weight,
                                          const Tensor& x) {
  if (!weight) return std::nullopt;
  TX_CHECK(sizes_of(*weight) == sizes_of(x), op, "weight must have shape ", shape_text(x), ", got ",
           shape_text(*weight));
  const ScalarType type = weight->scalar_type();
  TX_CHECK(type == ScalarType::Double || type == ScalarType::Float, op,
           "weight must be float32 or float64, got ", dtype_name(type));
  return torch::stable::to(torch::stable::contiguous(*weight), ScalarType::Double);
}

/// Weights as float64, or none: finite, not negative, of the shape of x.
class Weights {
 public:
  Weights(const char* op, const std::optional<Tensor>& weight, const Tensor& x)
      : dense_(dense_weight(op, weight, x)) {
    if (!dense_) return;
    const double* w = data();
    check_finite(op, "weight", w, x.numel());
    for (int64_t i = 0; i < x.numel(); ++i)
      TX_CHECK(w[i] >= 0, op, "weight must not be negative, got ", w[i], " at element ", i);
  }

  const double* data() const { return dense_ ? dense_->const_data_ptr<double>() : nullptr; }

 private:
  std::optional<Tensor> dense_;
};

}  // namespace torchext::ops
