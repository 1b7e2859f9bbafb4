// What is known before rounding: scales that cover the values, and the variance rounding will add.
#include <algorithm>

#include "kernels/ranges.h"
#include "kernels/tree_sum.h"
#include "kernels/variance.h"
#include "quantize_format.h"

namespace torchext::ops {
namespace {

using OptTensor = std::optional<Tensor>;
using OptInt = std::optional<int64_t>;

/// Ranges of all channels. Channels longer than a cache line are read whole; shorter ones (columns)
/// by blocks of rows with ranges of their own, merged afterwards.
std::vector<Range> channel_ranges(const float* x, int64_t n, const Channels& c) {
  constexpr int64_t kChunk = 1 << 16;
  std::vector<Range> ranges(static_cast<size_t>(c.count));
  if (n == 0) return ranges;
  if (c.count == 1 || (c.inner == 1 && n > c.count)) {
    const int64_t rows = n / c.count,
                  chunk = std::max<int64_t>(1, std::max(kChunk / c.count, rows / 64));
    const int64_t chunks = (rows + chunk - 1) / chunk;
    std::vector<Range> parts(static_cast<size_t>(chunks * c.count));
    parallel_for(chunks, 1, [&](int64_t b, int64_t e) {
      for (int64_t k = b; k < e; ++k) {
        const int64_t count = std::min(chunk, rows - k * chunk);
        const float* from = x + k * chunk * c.count;
        Range* part = parts.data() + k * c.count;
        if (c.count == 1) {
          cpu::widen_range(from, count, *part);
        } else {
          cpu::widen_columns(from, count, c.count, part);
        }
      }
    });
    for (size_t k = 0; k < parts.size(); ++k) cpu::merge_range(parts[k], ranges[k % ranges.size()]);
    return ranges;
  }
  parallel_for(c.count, std::max<int64_t>(1, kChunk / c.inner), [&](int64_t b, int64_t e) {
    for (int64_t k = b; k < e; ++k) {
      for (int64_t at = k * c.inner; at < n; at += c.count * c.inner) {
        cpu::widen_range(x + at, std::min(c.inner, n - at), ranges[static_cast<size_t>(k)]);
      }
    }
  });
  return ranges;
}

[[noreturn]] void fail_not_finite(const char* op, const float* x, int64_t n) {
  int64_t i = 0;
  while (i < n && std::isfinite(x[i])) ++i;
  fail(op, "x must be finite to choose a scale, got ", i < n ? x[i] : 0.0f, " at element ", i);
}

Tensor quantization_scale(const Tensor& x, int64_t bits, std::string scheme_name, OptInt dim,
                          OptInt bucket_size) {
  constexpr const char* op = "quantization_scale";
  const Tensor in = as_float(op, "x", x);
  const Scheme scheme = parse_grid(op, scheme_name);
  const int width = check_bits(op, scheme, bits);
  const Channels channels = channels_of(op, sizes_of(x), dim, bucket_size);
  const auto* values = in.const_data_ptr<float>();
  const std::vector<Range> ranges = channel_ranges(values, in.numel(), channels);
  const bool affine = scheme == Scheme::affine;
  Tensor out = affine ? torch::stable::new_empty(x, {channels.count, 2}, ScalarType::Float)
                      : torch::stable::new_empty(x, {channels.count}, ScalarType::Float);
  auto* scale = out.mutable_data_ptr<float>();
  for (size_t c = 0; c < ranges.size(); ++c) {
    const Range& r = ranges[c];
    if (r.magnitude >= kInfinityBits) fail_not_finite(op, values, in.numel());
    if (!affine) {
      scale[c] = symmetric_spacing(r.magnitude, width);
      continue;
    }
    const bool empty = r.lo > r.hi;
    const AffineGrid grid = affine_grid(empty ? 0.0f : r.lo, empty ? 0.0f : r.hi, width);
    TX_CHECK(grid.step <= FLT_MAX, op, "x must span less than 3.4e38, got ",
             static_cast<double>(r.hi) - static_cast<double>(r.lo));
    scale[2 * c] = grid.lo;
    scale[2 * c + 1] = grid.step;
  }
  return out;
}

Tensor quantization_variance(const Tensor& x, const OptTensor& scale, const OptTensor& levels,
                             int64_t bits, std::string scheme, OptInt dim, OptInt bucket_size) {
  constexpr const char* op = "quantization_variance";
  const Tensor in = as_float(op, "x", x);
  const PreparedFormat prepared(op, sizes_of(x), scale, levels, bits, scheme, dim, bucket_size);
  const Format& format = prepared.format();
  const auto* values = in.const_data_ptr<float>();
  const int64_t n = in.numel(), chunks = (n + kTreeChunk - 1) / kTreeChunk;
  std::vector<double> sums(static_cast<size_t>(chunks));
  parallel_for(chunks, 16, [&](int64_t b, int64_t e) {
    for (int64_t k = b; k < e; ++k) {
      const int64_t first = k * kTreeChunk;
      sums[static_cast<size_t>(k)] =
          tree_sum_chunk(std::min(kTreeChunk, n - first), [&](int64_t i) {
            const int64_t channel = (first + i) / format.scales.inner % format.scales.channels;
            return rounding_variance(format, values[first + i], channel);
          });
    }
  });
  Tensor out = torch::stable::new_empty(x, std::vector<int64_t>{}, ScalarType::Double);
  *out.mutable_data_ptr<double>() =
      tree_sum(chunks, [&](int64_t k) { return sums[static_cast<size_t>(k)]; });
  return out;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("quantization_scale", TORCH_BOX(&torchext::ops::quantization_scale));
  m.impl("quantization_variance", TORCH_BOX(&torchext::ops::quantization_variance));
}
