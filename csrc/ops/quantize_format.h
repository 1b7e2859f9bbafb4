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

/// The scheme of an op that takes no level tables.
inline Scheme parse_grid(const char* op, const std::string& scheme) {
  const Scheme parsed = parse_scheme(op, scheme);
  TX_CHECK(parsed != Scheme::levels, op, "scheme must be symmetric or minmax, got levels");
  return parsed;
}

/// Codes per value; the symmetric grid of one bit would be {0}.
inline int check_bits(const char* op, Scheme scheme, int64_t bits) {
  const int64_t least = scheme == Scheme::symmetric ? 2 : 1;
  return static_cast<int>(check_range(
      op, scheme == Scheme::symmetric ? "bits of scheme symmetric" : "bits", bits, least, 8));
}

/// Bits of a code in arguments of pack_bits.
inline int check_pack(const char* op, const Tensor& codes, int64_t bits) {
  check_dtype(op, "codes", codes, ScalarType::Byte);
  return static_cast<int>(check_range(op, "bits", bits, 1, 8));
}

/// The same of unpack_bits.
inline int check_unpack(const char* op, const Tensor& packed, int64_t n, int64_t bits) {
  check_dtype(op, "packed", packed, ScalarType::Byte);
  const auto width = static_cast<int>(check_range(op, "bits", bits, 1, 8));
  check_range(op, "n", n, 0, int64_t{1} << 59);
  check_shape(op, "packed", packed, {packed_bytes(n, width)});
  return width;
}

inline bool parse_rounding(const char* op, const std::string& rounding) {
  TX_CHECK(rounding == "stochastic" || rounding == "nearest", op,
           "rounding must be stochastic or nearest, got ", rounding);
  return rounding == "stochastic";
}

/// Whether rounding is stochastic, and then with a key.
inline bool check_rounding(const char* op, const std::string& rounding,
                           const std::optional<Tensor>& key) {
  const bool stochastic = parse_rounding(op, rounding);
  TX_CHECK(key || !stochastic, op, "key must be a key under stochastic rounding, got None");
  if (stochastic) check_key(op, *key);
  return stochastic;
}

/// A float tensor, contiguous.
inline Tensor dense_floats(const char* op, const char* name, const Tensor& x) {
  const ScalarType type = x.scalar_type();
  TX_CHECK(type == ScalarType::Float || type == ScalarType::Double ||
               type == ScalarType::BFloat16 || type == ScalarType::Half,
           op, name, " must be float32, float64, bfloat16 or float16, got ", dtype_name(type));
  return torch::stable::contiguous(x);
}

/// float32 values of a float tensor, contiguous: exact for bfloat16 and float16, rounded for
/// float64.
inline Tensor as_float(const char* op, const char* name, const Tensor& x) {
  const Tensor dense = dense_floats(op, name, x);
  return x.scalar_type() == ScalarType::Float ? dense : torch::stable::to(dense, ScalarType::Float);
}

/// Number of values of a tensor that an op makes.
inline int64_t check_size(const char* op, const std::vector<int64_t>& size) {
  int64_t n = 1;
  for (const int64_t length : size) n *= check_range(op, "size", length, 0, int64_t{1} << 62);
  return n;
}

/// The format arguments of an op: all that can be checked without reading a value.
struct FormatArguments {
  Channels channels;
  Scheme scheme;
  int bits;
  std::optional<Tensor> scale, levels;  // contiguous
  int32_t level_count = 0;
  bool shared_table = true;

  FormatArguments(const char* op, const std::vector<int64_t>& sizes,
                  const std::optional<Tensor>& scale_in, const std::optional<Tensor>& levels_in,
                  int64_t bits_in, const std::string& scheme_in, std::optional<int64_t> dim,
                  std::optional<int64_t> bucket_size)
      : channels(channels_of(op, sizes, dim, bucket_size)),
        scheme(parse_scheme(op, scheme_in)),
        bits(check_bits(op, scheme, bits_in)) {
    TX_CHECK(levels_in.has_value() == (scheme == Scheme::levels), op,
             levels_in ? "scheme must be levels when a level table is given, got "
                       : "levels must be a tensor of levels under scheme ",
             scheme_in);
    TX_CHECK(scale_in || scheme == Scheme::levels, op, "scale must be a tensor under scheme ",
             scheme_in);
    if (scale_in) {
      check_dtype(op, "scale", *scale_in, ScalarType::Float);
      if (scheme == Scheme::affine) {
        check_shape(op, "scale", *scale_in, {channels.count, 2});
      } else if (scale_in->dim() != 0 || channels.count != 1) {
        check_shape(op, "scale", *scale_in, {channels.count});
      }
      scale = torch::stable::contiguous(*scale_in);
    }
    if (levels_in) check_levels(op, *levels_in);
  }

 private:
  void check_levels(const char* op, const Tensor& t) {
    check_dtype(op, "levels", t, ScalarType::Float);
    TX_CHECK(t.dim() == 1 || (t.dim() == 2 && t.sizes()[0] == channels.count), op,
             "levels must have shape (levels,) or (", channels.count, ", levels), got ",
             shape_text(t));
    const int64_t count = t.sizes()[static_cast<size_t>(t.dim() - 1)];
    TX_CHECK(count >= 2 && count <= int64_t{1} << bits, op, "levels must have 2 to ", 1 << bits,
             " entries for these bits, got ", count);
    levels = torch::stable::contiguous(t);
    level_count = static_cast<int32_t>(count);
    shared_table = t.dim() == 1;
  }
};

/// A Format and the memory it points to.
class PreparedFormat {
 public:
  PreparedFormat(const char* op, const std::vector<int64_t>& sizes,
                 const std::optional<Tensor>& scale, const std::optional<Tensor>& levels,
                 int64_t bits, const std::string& scheme, std::optional<int64_t> dim,
                 std::optional<int64_t> bucket_size)
      : op_(op), given_(op, sizes, scale, levels, bits, scheme, dim, bucket_size) {
    format_.scheme = given_.scheme;
    format_.bits = given_.bits;
    read_scales();
    if (given_.levels) read_levels();
  }

  PreparedFormat(const PreparedFormat&) = delete;
  PreparedFormat& operator=(const PreparedFormat&) = delete;

  const Format& format() const { return format_; }

 private:
  void read_scales() {
    const bool affine = format_.scheme == Scheme::affine;
    const auto count = static_cast<size_t>(given_.channels.count);
    step_.assign(count, 1.0f);
    if (affine) lo_.resize(count);
    const auto* values = given_.scale ? given_.scale->const_data_ptr<float>() : nullptr;
    for (size_t c = 0; values && c < count; ++c) {
      step_[c] = affine ? values[2 * c + 1] : values[c];
      if (affine) lo_[c] = values[2 * c] + 0.0f;
      TX_CHECK(step_[c] >= 0.0f && std::isfinite(step_[c]), op_,
               "scale must be finite and not negative, got ", step_[c], " in channel ", c);
      TX_CHECK(!affine || std::isfinite(lo_[c]), op_, "scale must hold finite minima, got ", lo_[c],
               " in channel ", c);
    }
    inverse_.resize(count);
    for (size_t c = 0; c < count; ++c) {
      inverse_[c] = inverse_step(step_[c]);
      step_[c] = effective_step(step_[c]);
    }
    format_.scales = {inverse_.data(), step_.data(), affine ? lo_.data() : nullptr,
                      given_.channels.count, given_.channels.inner};
  }

  void read_levels() {
    const int64_t count = given_.level_count,
                  tables = given_.shared_table ? 1 : given_.channels.count;
    const auto* values = given_.levels->const_data_ptr<float>();
    last_.resize(static_cast<size_t>(tables));
    for (int64_t t = 0; t < tables; ++t)
      last_[static_cast<size_t>(t)] = last_distinct(values + t * count, count);
    format_.levels = {values, last_.data(), given_.level_count, given_.shared_table ? 0 : count};
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
  FormatArguments given_;
  Format format_{};
  std::vector<float> inverse_, step_, lo_;
  std::vector<int32_t> last_;
};

}  // namespace torchext::ops
