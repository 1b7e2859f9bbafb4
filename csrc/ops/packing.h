// Arguments of the ops that move codes between layouts, checked; CPU and CUDA ops share this.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "codes.h"
#include "matrix.h"

namespace torchext::ops {

/// Codes one by one and as the bytes of a layout: what an op reads of them, and what it makes.
struct Packing {
  CodeLayout layout;
  Tensor codes, packed;
};

inline int check_layout_bits(const char* op, int64_t bits) {
  TX_CHECK(valid_bits(bits), op, "bits must be 1..8 or 16, got ", bits);
  return static_cast<int>(bits);
}

inline ScalarType code_type(int bits) { return bits > 8 ? ScalarType::UInt16 : ScalarType::Byte; }

inline Packing read_pack(const char* op, const Tensor& codes, int64_t bits,
                         const std::string& layout) {
  const int b = check_layout_bits(op, bits);
  TX_CHECK(codes.scalar_type() == code_type(b), op, "codes must be ", dtype_name(code_type(b)),
           ", got ", dtype_name(codes.scalar_type()));
  TX_CHECK(codes.dim() == 2, op, "codes must have shape (rows, columns), got ", shape_text(codes));
  const CodeLayout l{read_layout(op, layout), b, codes.size(0), codes.size(1)};
  return {l, torch::stable::contiguous(codes),
          torch::stable::new_empty(codes, {layout_bytes(l)}, ScalarType::Byte)};
}

inline Packing read_unpack(const char* op, const Tensor& packed, int64_t rows, int64_t cols,
                           int64_t bits, const std::string& layout) {
  const int b = check_layout_bits(op, bits);
  check_range(op, "rows", rows, 0, int64_t{1} << 48);
  check_range(op, "cols", cols, 0, int64_t{1} << 31);
  const CodeLayout l{read_layout(op, layout), b, rows, cols};
  read_array<uint8_t>(op, "packed", packed, ScalarType::Byte, {layout_bytes(l)});
  return {l, torch::stable::new_empty(packed, {rows, cols}, code_type(b)), packed};
}

/// Everything but the values of `order`, which may be on a GPU.
struct Permutation {
  int64_t rows, size;
  const int64_t* order;
  const uint8_t* in;
  uint8_t* out;
  int bits;
};
inline Permutation read_permutation(const char* op, const Tensor& packed, const Tensor& order,
                                    int64_t cols, int64_t bits, const Tensor& out) {
  const int b = check_layout_bits(op, bits);
  check_range(op, "cols", cols, 0, int64_t{1} << 31);
  const int64_t rows = order.numel(), size = layout_bytes({Layout::tile4, b, rows, cols});
  const Permutation p{rows,
                      size,
                      read_array<int64_t>(op, "order", order, ScalarType::Long, {rows}),
                      read_array<uint8_t>(op, "packed", packed, ScalarType::Byte, {size}),
                      write_array<uint8_t>(op, "out", out, ScalarType::Byte, {size}),
                      b};
  TX_CHECK(p.in != p.out || size == 0, op, "out must be another tensor than packed, got the same");
  return p;
}

}  // namespace torchext::ops
