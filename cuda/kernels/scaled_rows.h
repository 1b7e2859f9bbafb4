// Launch functions for rows in the units of a solver; they need the CUDA runtime, no torch.
#pragma once

#include "kernels/linear/grid_rows.h"
#include "kernels/scale_rows.h"
#include "launch.h"

namespace torchext::cuda {

/// Rows on a grid as in csrc/kernels/linear/grid_rows.h, to the same bits; NaN becomes the top
/// code.
cudaError_t launch_grid_rows(const cpu::GridRows& p, int64_t rows, cudaStream_t stream) noexcept;

/// Scaled rows as in csrc/kernels/scale_rows.h, to the same bits, of a source of `limit` rows; an
/// index outside it gives a row of NaN.
cudaError_t launch_scale_rows(const cpu::ScaleRows& p, int64_t rows, int64_t limit,
                              cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
