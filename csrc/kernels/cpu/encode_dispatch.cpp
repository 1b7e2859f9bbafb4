#include "kernels/column_stats.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/encode.h"
#include "kernels/lloyd.h"

namespace torchext::cpu {

EncodeKernels encode_kernels() noexcept { return {encode_tile_ref, gradient_tile_ref}; }

ColumnStatsFn* column_stats_kernel() noexcept { return column_stats_ref; }

HistogramFn* histogram_kernel() noexcept { return histogram_ref; }

}  // namespace torchext::cpu
