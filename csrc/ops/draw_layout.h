// How several draws of a value are stored: the arguments of quantize_draws and dequantize_draws.
#pragma once

#include "kernels/draws.h"
#include "quantize_format.h"

namespace torchext::ops {

/// How k draws of a table are stored.
struct DrawLayout {
  DrawForm form;
  int draws, base_bits, draw_bits;

  int width() const { return base_bits + draw_bits; }
  /// The decoder deals the upward draws out, by a key of its own.
  bool dealt() const { return form != DrawForm::bits; }
  int64_t interval_bytes(int64_t n) const { return width() > 0 ? packed_bytes(n, width()) : 0; }
  int64_t bytes(int64_t n) const {
    const int64_t counts = form == DrawForm::ternary ? (n + kCountsAByte - 1) / kCountsAByte : 0;
    return interval_bytes(n) + counts;
  }
};

inline DrawLayout draw_layout(const char* op, int64_t level_count, int64_t draws,
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

inline int64_t level_count(const char* op, const Tensor& levels) {
  TX_CHECK(levels.dim() >= 1, op, "levels must have shape (levels,) or (channels, levels), got ()");
  return levels.sizes()[static_cast<size_t>(levels.dim() - 1)];
}

/// Elements of the result of dequantize_draws, whose arguments fit the layout.
inline int64_t check_drawn(const char* op, const DrawLayout& layout, const Tensor& codes,
                           const std::vector<int64_t>& size, int64_t draw, const std::string& form,
                           const std::optional<Tensor>& key) {
  check_range(op, "draw", draw, 0, layout.draws - 1);
  const int64_t n = check_size(op, size);
  check_shape(op, "codes", codes, {layout.bytes(n)});
  TX_CHECK(key || !layout.dealt(), op, "key must be a key in form ", form, ", got None");
  return n;
}

}  // namespace torchext::ops
