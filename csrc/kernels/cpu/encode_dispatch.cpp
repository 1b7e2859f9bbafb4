#include "kernels/column_levels.h"
#include "kernels/column_stats.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/encode.h"

namespace torchext::cpu {

EncodeKernels encode_kernels() noexcept {
  switch (active_isa()) {
#if defined(__x86_64__)
    case Isa::avx512: return {encode_tile_avx512, gradient_tile_avx512, true};
    case Isa::avx2: return {encode_tile_avx2, gradient_tile_avx2, true};
#endif
    default: return {encode_tile_ref, gradient_tile_ref, false};
  }
}

ColumnStatsFn* column_stats_kernel() noexcept {
  switch (active_isa()) {
#if defined(__x86_64__)
    case Isa::avx512: return column_stats_avx512;
    case Isa::avx2: return column_stats_avx2;
#endif
    default: return column_stats_ref;
  }
}

HistogramFn* histogram_kernel() noexcept {
  switch (active_isa()) {
#if defined(__x86_64__)
    case Isa::avx512:
    case Isa::avx2: return histogram_avx2;
#endif
    default: return histogram_ref;
  }
}

}  // namespace torchext::cpu
