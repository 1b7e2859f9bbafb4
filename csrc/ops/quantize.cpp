// Rounding to codes, back to values, and the round trip in one pass.
#include <atomic>

#include "quantize_format.h"

namespace torchext::ops {
namespace {

constexpr int64_t kGrain = 256;  // units of 64 elements per task

using OptTensor = std::optional<Tensor>;
using OptInt = std::optional<int64_t>;

template <class Body>
void over_units(int64_t n, const Body& body) {
  parallel_for((n + 63) / 64, kGrain,
               [&](int64_t b, int64_t e) { body(b * 64, e * 64 < n ? e * 64 : n); });
}

QuantizeParams rounding_params(const char* op, const PreparedFormat& format, const Tensor& x,
                               const std::string& rounding, const OptTensor& key, int64_t stream) {
  QuantizeParams p{};
  p.format = format.format();
  p.x = x.const_data_ptr<float>();
  p.n = x.numel();
  p.stochastic = check_rounding(op, rounding, key);
  p.stream = to_stream(op, stream);
  if (p.stochastic) p.key = read_key(op, *key);
  return p;
}

/// Names the first value that has no code: NaN, or Inf where the scale counts as zero.
[[noreturn]] void fail_without_code(const char* op, const QuantizeParams& p,
                                    const std::string& scheme) {
  const Scales& s = p.format.scales;
  int64_t i = 0;
  for (; i < p.n; ++i) {
    const float inverse = s.inverse[i / s.inner % s.channels];
    if (std::isnan(p.x[i]) || (std::isinf(p.x[i]) && inverse == 0.0f)) break;
  }
  fail(op, "x must not hold NaN under scheme ", scheme, ", got ", i < p.n ? p.x[i] : 0.0f,
       " at element ", i);
}

Tensor quantize(const Tensor& x, const OptTensor& scale, const OptTensor& levels, int64_t bits,
                std::string scheme, OptInt dim, OptInt bucket_size, std::string rounding,
                const OptTensor& key, int64_t stream) {
  constexpr const char* op = "quantize";
  const Tensor in = as_float(op, "x", x);
  const PreparedFormat format(op, sizes_of(x), scale, levels, bits, scheme, dim, bucket_size);
  QuantizeParams p = rounding_params(op, format, in, rounding, key, stream);
  Tensor codes = torch::stable::new_empty(x, {packed_bytes(p.n, p.format.bits)}, ScalarType::Byte);
  p.codes = codes.mutable_data_ptr<uint8_t>();
  const auto kernel = cpu::quantize_kernels().quantize;
  std::atomic<bool> uncoded{false};
  over_units(p.n, [&](int64_t b, int64_t e) {
    if (kernel(p, b, e)) uncoded.store(true, std::memory_order_relaxed);
  });
  if (uncoded.load()) fail_without_code(op, p, scheme);
  return codes;
}

Tensor fake_quantize(const Tensor& x, const OptTensor& scale, const OptTensor& levels, int64_t bits,
                     std::string scheme, OptInt dim, OptInt bucket_size, std::string rounding,
                     const OptTensor& key, int64_t stream) {
  constexpr const char* op = "fake_quantize";
  const Tensor in = as_float(op, "x", x);
  const PreparedFormat format(op, sizes_of(x), scale, levels, bits, scheme, dim, bucket_size);
  QuantizeParams p = rounding_params(op, format, in, rounding, key, stream);
  Tensor out = torch::stable::new_empty(x, sizes_of(x), ScalarType::Float);
  p.y = out.mutable_data_ptr<float>();
  const auto kernel = cpu::quantize_kernels().round_trip;
  over_units(p.n, [&](int64_t b, int64_t e) { kernel(p, b, e); });
  return x.scalar_type() == ScalarType::Float ? out : torch::stable::to(out, x.scalar_type());
}

Tensor dequantize(const Tensor& codes, const OptTensor& scale, const OptTensor& levels,
                  std::vector<int64_t> size, int64_t bits, std::string scheme, OptInt dim,
                  OptInt bucket_size) {
  constexpr const char* op = "dequantize";
  check_dtype(op, "codes", codes, ScalarType::Byte);
  const PreparedFormat format(op, size, scale, levels, bits, scheme, dim, bucket_size);
  const int64_t n = check_size(op, size);
  check_shape(op, "codes", codes, {packed_bytes(n, format.format().bits)});
  const Tensor in = torch::stable::contiguous(codes);
  Tensor out = torch::stable::new_empty(codes, size, ScalarType::Float);
  QuantizeParams p{};
  p.format = format.format();
  p.codes = const_cast<uint8_t*>(in.const_data_ptr<uint8_t>());  // the kernel only reads it
  p.y = out.mutable_data_ptr<float>();
  p.n = n;
  const auto kernel = cpu::quantize_kernels().dequantize;
  over_units(n, [&](int64_t b, int64_t e) { kernel(p, b, e); });
  return out;
}

Tensor pack_bits(const Tensor& codes, int64_t bits) {
  constexpr const char* op = "pack_bits";
  const int width = check_pack(op, codes, bits);
  const Tensor in = torch::stable::contiguous(codes);
  const int64_t n = in.numel();
  const auto* from = in.const_data_ptr<uint8_t>();
  std::atomic<bool> wide{false};
  Tensor out = torch::stable::new_empty(codes, {packed_bytes(n, width)}, ScalarType::Byte);
  auto* to = out.mutable_data_ptr<uint8_t>();
  const auto kernel = cpu::quantize_kernels().pack;
  over_units(n, [&](int64_t b, int64_t e) {
    uint8_t any = 0;
    for (int64_t i = b; i < e; ++i) any |= from[i];
    if (any >> width) return wide.store(true, std::memory_order_relaxed);
    kernel(from, width, to, b, e);
  });
  TX_CHECK(!wide.load(), op, "codes must be below ", 1 << width,
           " for these bits, got a larger one");
  return out;
}

Tensor unpack_bits(const Tensor& packed, int64_t n, int64_t bits) {
  constexpr const char* op = "unpack_bits";
  const int width = check_unpack(op, packed, n, bits);
  const Tensor in = torch::stable::contiguous(packed);
  const auto* from = in.const_data_ptr<uint8_t>();
  Tensor out = torch::stable::new_empty(packed, {n}, ScalarType::Byte);
  auto* to = out.mutable_data_ptr<uint8_t>();
  const auto kernel = cpu::quantize_kernels().unpack;
  over_units(n, [&](int64_t b, int64_t e) { kernel(from, width, to, b, e); });
  return out;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("quantize", TORCH_BOX(&torchext::ops::quantize));
  m.impl("fake_quantize", TORCH_BOX(&torchext::ops::fake_quantize));
  m.impl("dequantize", TORCH_BOX(&torchext::ops::dequantize));
  m.impl("pack_bits", TORCH_BOX(&torchext::ops::pack_bits));
  m.impl("unpack_bits", TORCH_BOX(&torchext::ops::unpack_bits));
}
