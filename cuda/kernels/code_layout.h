// Codes between the layouts of a store and row-major order, and back to values.
#pragma once

#include "kernels/layout.h"
#include "launch.h"

namespace torchext::cuda {

/// Which rows of a data set: index[0 .. count), or the rows of batch *number of `batch` rows each.
struct RowChoice {
  const int64_t *index, *number;
  int64_t batch, count, rows;  // rows: of the data set

  /// Row i of the choice, or -1 if there is none.
  TX_DEVICE int64_t at(int64_t i) const {
    if (i >= count) return -1;
    const int64_t row = index != nullptr ? index[i] : *number * batch + i;
    return row >= 0 && row < rows ? row : -1;
  }
};

/// Row i of `out` is the i-th chosen row of `packed`, both tile4; codes 0 where there is none.
struct MoveRowsParams {
  RowChoice choice;
  const uint8_t* packed;
  uint8_t* out;  // ceil(count/64) tiles, aligned to 4 bytes as `packed`
  int64_t cols;
  int bits;  // 1..8 or 16
};
cudaError_t launch_move_rows(const MoveRowsParams& p, cudaStream_t stream) noexcept;

/// Row-major codes (uint8, uint16 for 16 bits) to the bytes of a layout, and the reverse.
struct PackParams {
  CodeLayout layout;
  void* codes;
  uint8_t* packed;
};
cudaError_t launch_pack_codes(const PackParams& p, cudaStream_t stream) noexcept;
cudaError_t launch_unpack_codes(const PackParams& p, cudaStream_t stream) noexcept;

/// out[i, j] = lo_j + step_j T of the i-th chosen row (NaN where there is none), by book `book`.
struct DecodeParams {
  RowChoice choice;
  CodeLayout layout;
  const uint8_t* packed;
  const float* dense;  // [rows, dense_pitch] instead of codes, or null
  int64_t dense_pitch;
  const float* grid;     // [cols, 2]
  const uint8_t* table;  // [planes, books, cols, 2^bits], or null
  int planes, books, book;
  float* out;
  int64_t pitch;  // of out
};
cudaError_t launch_decode_rows(const DecodeParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
