// k draws per value in one pass, and one of them back.
#include "kernels/draws.h"

#include <algorithm>
#include <atomic>

#include "quantize_format.h"

namespace torchext::ops {
namespace {

using OptInt = std::optional<int64_t>;

constexpr int64_t kGrain = 64;       // units of 64 elements per task
constexpr int64_t kCountsAByte = 5;  // 3^5 = 243 combinations of {0, 1, 2}

/// How k draws of a table are stored.
struct DrawLayout {
  DrawForm form;
  int draws, base_bits, draw_bits;

  int width() const { return base_bits + draw_bits; }
  int64_t bytes(int64_t n) const {
    const int64_t counts = form == DrawForm::ternary ? (n + kCountsAByte - 1) / kCountsAByte : 0;
    return (width() > 0 ? packed_bytes(n, width()) : 0) + counts;
  }
};

DrawLayout draw_layout(const char* op, int64_t level_count, int64_t draws,
                       const std::string& form) {
  DrawLayout layout{};
  TX_CHECK(form == "bits" || form == "count" || form == "ternary", op,
           "form must be bits, count or ternary, got ", form);
  layout.form = form == "bits"    ? DrawForm::bits
                : form == "count" ? DrawForm::count
                                  : DrawForm::ternary;
  layout.draws = static_cast<int>(check_range(op, "draws", draws, 1, 8));
  TX_CHECK(layout.form != DrawForm::ternary || draws == 2, op,
           "draws must be 2 in form ternary, got ", draws);
  layout.base_bits = bits_for(level_count - 1);
  layout.draw_bits = layout.form == DrawForm::bits    ? layout.draws
                     : layout.form == DrawForm::count ? bits_for(draws + 1)
                                                      : 0;
  TX_CHECK(layout.width() <= 8, op, "levels and draws must fit 8 bits per value, got ",
           layout.width());
  return layout;
}

int64_t level_count(const char* op, const Tensor& levels) {
  TX_CHECK(levels.dim() >= 1, op, "levels must have shape (levels,) or (channels, levels), got ()");
  return levels.sizes()[static_cast<size_t>(levels.dim() - 1)];
}

/// The last element's count may share its byte with none.
void pack_ternary(const uint8_t* counts, int64_t n, uint8_t* out) {
  for (int64_t i = 0; i < n; i += kCountsAByte) {
    int byte = 0;
    for (int64_t k = std::min(n, i + kCountsAByte) - 1; k >= i; --k) byte = 3 * byte + counts[k];
    *out++ = static_cast<uint8_t>(byte);
  }
}

uint32_t ternary_at(const uint8_t* packed, int64_t i) {
  constexpr uint32_t kPower[kCountsAByte] = {1, 3, 9, 27, 81};
  return packed[i / kCountsAByte] / kPower[i % kCountsAByte] % 3;
}

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
  if (ternary)
    pack_ternary(counts.data(), n,
                 codes + (layout.width() > 0 ? packed_bytes(n, layout.width()) : 0));
  return out;
}

Tensor dequantize_draws(const Tensor& codes, const Tensor& levels, std::vector<int64_t> size,
                        int64_t draws, std::string form, OptInt dim, int64_t draw,
                        const std::optional<Tensor>& key, int64_t stream) {
  constexpr const char* op = "dequantize_draws";
  check_dtype(op, "codes", codes, ScalarType::Byte);
  const PreparedFormat prepared(op, size, std::nullopt, levels, 8, "levels", dim, std::nullopt);
  const DrawLayout layout = draw_layout(op, level_count(op, levels), draws, form);
  check_range(op, "draw", draw, 0, draws - 1);
  int64_t n = 1;
  for (const int64_t length : size) n *= check_range(op, "size", length, 0, int64_t{1} << 62);
  check_shape(op, "codes", codes, {layout.bytes(n)});
  const bool dealt = layout.form != DrawForm::bits;
  TX_CHECK(key || !dealt, op, "key must be a key in form ", form, ", got None");
  const Key k = dealt ? read_key(op, *key) : Key{};
  const uint32_t s = to_stream(op, stream);
  const Format& f = prepared.format();
  const Tensor in = torch::stable::contiguous(codes);
  const auto* packed = in.const_data_ptr<uint8_t>();
  const int width = layout.width(), d = static_cast<int>(draw);
  const auto* ternary = packed + (width > 0 ? packed_bytes(n, width) : 0);
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
