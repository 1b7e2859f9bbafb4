// The histograms of columns as the CPU and the CUDA ops take them.
#pragma once

#include "kernels/column_levels.h"
#include "matrix.h"

namespace torchext::ops {

constexpr auto kStripBytes = static_cast<int64_t>(cpu::kStripMaps * sizeof(cpu::HistogramMap));

inline int64_t strips(int64_t cols) { return (cols + cpu::kLevelColumns - 1) / cpu::kLevelColumns; }

struct Histograms {
  const uint8_t* maps;  // cpu::HistogramMap of every 16 columns
  int64_t* counts;      // [2][cols][bins]: counts, sums
  int64_t bins;
};

inline Histograms read_histograms(const char* op, const Tensor& state, const Tensor& counts,
                                  int64_t cols) {
  TX_CHECK(counts.dim() == 3, op, "counts must have shape (2, ", cols, ", bins), got ",
           shape_text(counts));
  const int64_t bins = counts.size(2);
  TX_CHECK(bins == cpu::kHistogramBins || bins == cpu::kHistogramBins / 2, op,
           "counts must have 2048 or 4096 bins a column, got ", bins);
  return {read_array<uint8_t>(op, "state", state, ScalarType::Byte, {strips(cols), kStripBytes}),
          write_array<int64_t>(op, "counts", counts, ScalarType::Long, {2, cols, bins}), bins};
}

}  // namespace torchext::ops
