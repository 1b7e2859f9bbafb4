// The codes of a store, as the ops over them receive them; CPU and CUDA ops share these checks.
#pragma once

#include <string>

#include "kernels/linear/epoch.h"
#include "stable.h"

namespace torchext::ops {

inline Layout read_layout(const char* op, const std::string& layout) {
  if (layout == "tile4") return Layout::tile4;
  if (layout == "block") return Layout::block;
  TX_CHECK(layout == "row", op, "layout must be tile4, block or row, got ", layout);
  return Layout::row;
}

/// Checks the tensors of a store and fills in the data part of an epoch from them.
inline void read_codes(const char* op, cpu::Epoch& p, const Tensor& codes, int64_t rows,
                       int64_t cols, int64_t bits, const std::string& layout, const Tensor& grid,
                       const Tensor& table) {
  check_range(op, "rows", rows, 1, int64_t{1} << 40);
  check_range(op, "cols", cols, 1, cpu::kMaxCols);
  TX_CHECK(bits == 32 || (bits >= 1 && bits <= 8), op, "bits must be in [1, 8] or 32, got ", bits);
  p.data = {Layout::tile4, static_cast<int>(bits), rows, cols};
  p.books = p.planes = 1;
  check_contiguous(op, "codes", codes);
  if (bits == 32) {
    check_dtype(op, "codes", codes, ScalarType::Float);
    check_shape(op, "codes", codes, {rows, (cols + 15) / 16 * 16});
    p.dense = codes.const_data_ptr<float>();
    return;
  }
  p.data.kind = read_layout(op, layout);
  check_dtype(op, "codes", codes, ScalarType::Byte);
  TX_CHECK(codes.dim() == 1 && codes.numel() >= layout_bytes(p.data), op, "codes must hold ",
           layout_bytes(p.data), " bytes in one dimension, got shape ", shape_text(codes));
  p.codes = codes.const_data_ptr<uint8_t>();
  check_dtype(op, "grid", grid, ScalarType::Float);
  check_shape(op, "grid", grid, {cols, 2});
  check_contiguous(op, "grid", grid);
  p.grid = grid.const_data_ptr<float>();
  check_dtype(op, "table", table, ScalarType::Byte);
  if (table.numel() == 0) return;
  check_contiguous(op, "table", table);
  const bool fits = table.dim() == 4 && table.sizes()[0] >= 1 && table.sizes()[0] <= 2 &&
                    table.sizes()[1] >= 1 && table.sizes()[1] <= 2 && table.sizes()[2] == cols &&
                    table.sizes()[3] == int64_t{1} << bits;
  TX_CHECK(fits, op, "table must be empty or have shape (1 or 2, 1 or 2, ", cols, ", ",
           int64_t{1} << bits, "), got ", shape_text(table));
  p.table = table.const_data_ptr<uint8_t>();
  p.planes = static_cast<int>(table.sizes()[0]);
  p.books = static_cast<int>(table.sizes()[1]);
}

/// The same for ops that read tile4 codes with one book of levels.
inline cpu::Epoch read_code_matrix(const char* op, const Tensor& codes, int64_t rows, int64_t cols,
                                   int64_t bits, const Tensor& grid, const Tensor& table) {
  cpu::Epoch p{};
  read_codes(op, p, codes, rows, cols, bits, "tile4", grid, table);
  TX_CHECK(p.codes != nullptr, op, "bits must be in [1, 8], got ", bits);
  TX_CHECK(p.books == 1, op, "table must hold one book of levels, got ", p.books);
  return p;
}

/// The number of rows that `row_index` names.
inline int64_t read_row_index(const char* op, const Tensor& row_index) {
  check_dtype(op, "row_index", row_index, ScalarType::Long);
  TX_CHECK(row_index.dim() == 1, op, "row_index must have one dimension, got ",
           shape_text(row_index));
  check_contiguous(op, "row_index", row_index);
  return row_index.numel();
}

}  // namespace torchext::ops
