// k draws per value in one pass, and one of them back.
#include <algorithm>
#include <atomic>

#include "draw_layout.h"

namespace torchext::ops {
namespace {

using OptInt = std::optional<int64_t>;

constexpr int64_t kGrain = 64;  // units of 64 elements per task

Tensor quantize_draws(const Tensor& x, const Tensor& levels, int64_t draws, std::string form,
                      OptInt dim, const Tensor& key, int64_t stream) {
  constexpr const char* op = "quantize_draws";
  const Tensor in = as_float(op, "x", x);
  const PreparedFormat prepared(op, sizes_of(x), std::nullopt, levels, 8, "levels", dim,
                                std::nullopt);
  const DrawLayout layout = draw_layout(op, level_count(op, levels), draws, form);
  const Key k = read_key(op, key);
  const uint32_t s = to_stream(op, stream);
  const Format& f = prepared.format();
  const int64_t n = in.numel();
  const auto* values = in.const_data_ptr<float>();
  Tensor out = torch::stable::new_empty(x, {layout.bytes(n)}, ScalarType::Byte);
  auto* codes = out.mutable_data_ptr<uint8_t>();
  const bool ternary = layout.form == DrawForm::ternary;
  std::vector<uint8_t> counts(ternary ? static_cast<size_t>(n) : 0);
  std::atomic<int64_t> uncoded{-1};
  parallel_for((n + 63) / 64, kGrain, [&](int64_t b, int64_t e) {
    for (int64_t unit = b; unit < e; ++unit) {
      const int64_t first = unit * 64, count = std::min<int64_t>(64, n - first);
      uint8_t block[64];
      for (int64_t j = 0; j < count; ++j) {
        const int64_t i = first + j,
                      table = f.levels.stride ? i / f.scales.inner % f.scales.channels : 0;
        DrawCode c = draw_code(values[i], i, f.levels.values + table * f.levels.stride,
                               f.levels.last[table], layout.draws, k, s);
        if (c.base < 0) {
          uncoded.store(i, std::memory_order_relaxed);
          c.base = 0;
        }
        const auto ups = static_cast<uint32_t>(__builtin_popcount(c.ups));
        if (ternary) counts[static_cast<size_t>(i)] = static_cast<uint8_t>(ups);
        const uint32_t high = ternary ? 0 : layout.form == DrawForm::bits ? c.ups : ups;
        block[j] = static_cast<uint8_t>(static_cast<uint32_t>(c.base) | high << layout.base_bits);
      }
      const int width = layout.width();
      if (width > 0) pack_unit(block, static_cast<int>(count), width, codes + unit * 8 * width);
    }
  });
  TX_CHECK(uncoded.load() < 0, op, "x must not hold NaN, got nan at element ", uncoded.load());
  uint8_t* packed = codes + layout.interval_bytes(n);
  for (int64_t i = 0; ternary && i < n; i += kCountsAByte)
    *packed++ =
        ternary_byte(counts.data() + i, static_cast<int>(std::min<int64_t>(kCountsAByte, n - i)));
  return out;
}

Tensor dequantize_draws(const Tensor& codes, const Tensor& levels, std::vector<int64_t> size,
                        int64_t draws, std::string form, OptInt dim, int64_t draw,
                        const std::optional<Tensor>& key, int64_t stream) {
  constexpr const char* op = "dequantize_draws";
  check_dtype(op, "codes", codes, ScalarType::Byte);
  const PreparedFormat prepared(op, size, std::nullopt, levels, 8, "levels", dim, std::nullopt);
  const DrawLayout layout = draw_layout(op, level_count(op, levels), draws, form);
  const int64_t n = check_drawn(op, layout, codes, size, draw, form, key);
  const bool dealt = layout.dealt();
  const Key k = dealt ? read_key(op, *key) : Key{};
  const uint32_t s = to_stream(op, stream);
  const Format& f = prepared.format();
  const Tensor in = torch::stable::contiguous(codes);
  const auto* packed = in.const_data_ptr<uint8_t>();
  const int width = layout.width(), d = static_cast<int>(draw);
  const auto* ternary = packed + layout.interval_bytes(n);
  Tensor out = torch::stable::new_empty(codes, size, ScalarType::Float);
  auto* y = out.mutable_data_ptr<float>();
  parallel_for((n + 63) / 64, kGrain, [&](int64_t b, int64_t e) {
    for (int64_t unit = b; unit < e; ++unit) {
      const int64_t first = unit * 64, count = std::min<int64_t>(64, n - first);
      uint8_t block[64] = {};
      if (width > 0) unpack_unit(packed + unit * 8 * width, static_cast<int>(count), width, block);
      for (int64_t j = 0; j < count; ++j) {
        const int64_t i = first + j,
                      table = f.levels.stride ? i / f.scales.inner % f.scales.channels : 0;
        const int32_t base = block[j] & ((1 << layout.base_bits) - 1);
        const auto high = static_cast<uint32_t>(block[j] >> layout.base_bits);
        bool up;
        if (!dealt) {
          up = high >> d & 1;
        } else {
          const uint32_t ups = layout.form == DrawForm::ternary ? ternary_at(ternary, i) : high;
          up = dealt_up(i, d, ups, layout.draws, k, s);
        }
        y[i] = decode_level(base + (up ? 1 : 0), f.levels.values + table * f.levels.stride,
                            f.levels.count, 1.0f);
      }
    }
  });
  return out;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("quantize_draws", TORCH_BOX(&torchext::ops::quantize_draws));
  m.impl("dequantize_draws", TORCH_BOX(&torchext::ops::dequantize_draws));
}
