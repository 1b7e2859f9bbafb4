// The format arguments every quantization op shares, checked once and turned into kernel
// parameters.
#pragma once

#include <cmath>

#include "kernels/quantize.h"
#include "stable.h"

namespace torchext::ops {

/// How elements map to channels: dim, bucket_size or neither (one channel).
struct Channels {
  int64_t count;
  int64_t inner;
};

inline Channels channels_of(const char* op, const std::vector<int64_t>& sizes,
                            std::optional<int64_t> dim, std::optional<int64_t> bucket_size,
                            int64_t multiple = 8) {
  int64_t n = 1;
  for (const int64_t size : sizes) n *= size;
  TX_CHECK(!(dim && bucket_size), op, "dim must be None when bucket_size is given, got ", *dim);
  if (bucket_size) {
    TX_CHECK(*bucket_size > 0 && *bucket_size % multiple == 0, op,
             "bucket_size must be a positive multiple of ", multiple, ", got ", *bucket_size);
    return {(n + *bucket_size - 1) / *bucket_size, *bucket_size};
  }
  if (!dim) return {1, n > 0 ? n : 1};
  const auto dims = static_cast<int64_t>(sizes.size());
  TX_CHECK(*dim >= -dims && *dim < dims, op, "dim must be in [", -dims, ", ", dims - 1, "], got ",
           *dim);
  const auto d = static_cast<size_t>(*dim < 0 ? *dim + dims : *dim);
  int64_t inner = 1;
  for (size_t k = d + 1; k < sizes.size(); ++k) inner *= sizes[k];
  return {sizes[d], inner > 0 ? inner : 1};
}

inline std::vector<int64_t> sizes_of(const Tensor& t) {
  return {t.sizes().begin(), t.sizes().end()};
}

inline Scheme parse_scheme(const char* op, const std::string& scheme) {
  if (scheme == "symmetric") return Scheme::symmetric;
  if (scheme == "minmax") return Scheme::affine;
  TX_CHECK(scheme == "levels", op, "scheme must be symmetric, minmax or levels, got ", scheme);
  return Scheme::levels;
}

/// Codes per value; the symmetric grid of one bit would be {0}.
inline int check_bits(const char* op, Scheme scheme, int64_t bits) {
  const int64_t least = scheme == Scheme::symmetric ? 2 : 1;
  return static_cast<int>(check_range(
      op, scheme == Scheme::symmetric ? "bits of scheme symmetric" : "bits", bits, least, 8));
}

inline bool parse_rounding(const char* op, const std::string& rounding) {
  TX_CHECK(rounding == "stochastic" || rounding == "nearest", op,
           "rounding must be stochastic or nearest, got ", rounding);
  return rounding == "stochastic";
}

/// float32 values of a float tensor, contiguous: exact for bfloat16 and float16, rounded for
/// float64.
inline Tensor as_float(const char* op, const char* name, const Tensor& x) {
  const ScalarType type = x.scalar_type();
  TX_CHECK(type == ScalarType::Float || type == ScalarType::Double ||
               type == ScalarType::BFloat16 || type == ScalarType::Half,
           op, name, " must be float32, float64, bfloat16 or float16, got ", dtype_name(type));
  const Tensor dense = torch::stable::contiguous(x);
  return type == ScalarType::Float ? dense : torch::stable::to(dense, ScalarType::Float);
}

/// A Format and the memory it points to.
class PreparedFormat {
 public:
  PreparedFormat(const char* op, const std::vector<int64_t>& sizes,
                 const std::optional<Tensor>& scale, const std::optional<Tensor>& levels,
                 int64_t bits, const std::string& scheme, std::optional<int64_t> dim,
                 std::optional<int64_t> bucket_size)
      : op_(op), channels_(channels_of(op, sizes, dim, bucket_size)) {
    format_.scheme = parse_scheme(op, scheme);
    format_.bits = check_bits(op, format_.scheme, bits);
    TX_CHECK(levels.has_value() == (format_.scheme == Scheme::levels), op,
             levels ? "scheme must be levels when a level table is given, got "
                    : "levels must be a tensor of levels under scheme ",
             scheme);
    TX_CHECK(scale || format_.scheme == Scheme::levels, op, "scale must be a tensor under scheme ",
             scheme);
    read_scales(scale);
    if (levels) read_levels(*levels);
  }

  PreparedFormat(const PreparedFormat&) = delete;
  PreparedFormat& operator=(const PreparedFormat&) = delete;

  const Format& format() const { return format_; }

 private:
  void read_scales(const std::optional<Tensor>& scale) {
    const bool affine = format_.scheme == Scheme::affine;
    const auto count = static_cast<size_t>(channels_.count);
    step_.assign(count, 1.0f);
    if (scale) {
      check_dtype(op_, "scale", *scale, ScalarType::Float);
      if (affine) {
        check_shape(op_, "scale", *scale, {channels_.count, 2});
      } else if (scale->dim() != 0 || channels_.count != 1) {
        check_shape(op_, "scale", *scale, {channels_.count});
      }
      const Tensor dense = torch::stable::contiguous(*scale);
      const auto* values = dense.const_data_ptr<float>();
      if (affine) lo_.resize(count);
      for (size_t c = 0; c < count; ++c) {
        step_[c] = affine ? values[2 * c + 1] : values[c];
        if (affine) lo_[c] = values[2 * c] + 0.0f;
        TX_CHECK(step_[c] >= 0.0f && std::isfinite(step_[c]), op_,
                 "scale must be finite and not negative, got ", step_[c], " in channel ", c);
        TX_CHECK(!affine || std::isfinite(lo_[c]), op_, "scale must hold finite minima, got ",
                 lo_[c], " in channel ", c);
      }
    }
    inverse_.resize(count);
    for (size_t c = 0; c < count; ++c) {
      inverse_[c] = inverse_step(step_[c]);
      step_[c] = effective_step(step_[c]);
    }
    format_.scales = {inverse_.data(), step_.data(), affine ? lo_.data() : nullptr, channels_.count,
                      channels_.inner};
  }

  void read_levels(const Tensor& levels) {
    check_dtype(op_, "levels", levels, ScalarType::Float);
    TX_CHECK(levels.dim() == 1 || (levels.dim() == 2 && levels.sizes()[0] == channels_.count), op_,
             "levels must have shape (levels,) or (", channels_.count, ", levels), got ",
             shape_text(levels));
    const int64_t count = levels.sizes()[static_cast<size_t>(levels.dim() - 1)];
    TX_CHECK(count >= 2 && count <= int64_t{1} << format_.bits, op_, "levels must have 2 to ",
             1 << format_.bits, " entries for these bits, got ", count);
    levels_ = torch::stable::contiguous(levels);
    const auto* values = levels_->const_data_ptr<float>();
    const int64_t tables = levels.dim() == 1 ? 1 : channels_.count;
    last_.resize(static_cast<size_t>(tables));
    for (int64_t t = 0; t < tables; ++t)
      last_[static_cast<size_t>(t)] = last_distinct(values + t * count, count);
    format_.levels = {values, last_.data(), static_cast<int32_t>(count),
                      levels.dim() == 1 ? 0 : count};
  }

  /// Tables rise strictly up to their last distinct entry, which may be repeated as padding.
  int32_t last_distinct(const float* table, int64_t count) const {
    int64_t last = count - 1;
    while (last > 0 && table[last - 1] == table[last]) --last;
    for (int64_t i = 0; i <= last; ++i) {
      TX_CHECK(std::isfinite(table[i]) && (i == 0 || table[i - 1] < table[i]), op_,
               "levels must be finite and ascending, got ", table[i], " at position ", i);
    }
    return static_cast<int32_t>(last);
  }

  const char* op_;
  Channels channels_;
  Format format_{};
  std::vector<float> inverse_, step_, lo_;
  std::vector<int32_t> last_;
  std::optional<Tensor> levels_;
};

}  // namespace torchext::ops
