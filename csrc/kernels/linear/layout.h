// Where a b-bit code lies: the three storage layouts of a quantized data set.
//
// A width is split into planes of 1, 2, 4 or 8 bits, low bits first (7 = 4+2+1), so that a plane
// always holds whole fields per byte. docs/store-format.md draws the pictures; readers of all
// languages implement the arithmetic below.
#pragma once

#include <cstdint>

#include "../philox.h"

namespace torchext {

enum class Layout : int { tile4 = 0, block = 1, row = 2 };

/// Geometry of one copy of the codes.
struct CodeLayout {
  Layout kind;
  int bits;
  int64_t rows;
  int64_t cols;
};

constexpr int kTileRows =
    64;  // rows of a tile4 tile; mini-batches of whole tiles need no repacking
constexpr int kBlockRows = 128;  // rows of a block-layout block

/// Width of the plane that starts at bit `low` of a `bits`-wide code.
TX_HD int plane_width(int bits, int low) {
  const int rest = bits - low;
  return rest >= 8 ? 8 : rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
}

TX_HD int64_t tile_groups(int64_t cols) { return (cols + 3) / 4; }

/// Bytes of one row in the row layout.
TX_HD int64_t row_bytes(int bits, int64_t cols) {
  int64_t bytes = 0;
  for (int low = 0; low < bits; low += plane_width(bits, low)) {
    bytes += (cols * plane_width(bits, low) + 511) / 512 * 64;
  }
  return bytes;
}

/// Bytes of one copy.
TX_HD int64_t code_bytes(const CodeLayout& l) {
  switch (l.kind) {
    case Layout::tile4:
      return (l.rows + kTileRows - 1) / kTileRows * tile_groups(l.cols) * 32 * l.bits;
    case Layout::block: return (l.rows + kBlockRows - 1) / kBlockRows * l.cols * 16 * l.bits;
    default: return l.rows * row_bytes(l.bits, l.cols);
  }
}

/// A field: byte offset in the copy and shift inside the byte.
struct Field {
  int64_t byte;
  int shift;
};

/// The field of plane [low, low + p) of tile4's (row r of the tile, column c of the group), from
/// the group's start.
TX_HD Field tile_field(int low, int p, int r, int c) {
  const int64_t base = 32 * int64_t{low};
  if (p == 1) return {base + 4 * (r % 8) + c, r / 8};
  if (p == 2) return {base + 4 * (r % 16) + c, 2 * (r / 16)};
  if (p == 4) return {base + 64 * (r / 32) + 4 * (r % 16) + c, 4 * (r / 16 % 2)};
  return {base + 64 * (r / 16) + 4 * (r % 16) + c, 0};
}

/// The field of plane [low, low + p) of (row, col).
TX_HD Field code_field(const CodeLayout& l, int low, int p, int64_t row, int64_t col) {
  if (l.kind == Layout::tile4) {
    Field f = tile_field(low, p, static_cast<int>(row % kTileRows), static_cast<int>(col % 4));
    f.byte += (row / kTileRows * tile_groups(l.cols) + col / 4) * 32 * l.bits;
    return f;
  }
  if (l.kind == Layout::block) {
    const int64_t r = row % kBlockRows,
                  start = (row / kBlockRows * l.cols + col) * 16 * l.bits + 16 * low;
    return {start + r % (16 * p), static_cast<int>(r / (16 * p)) * p};
  }
  int64_t start = row * row_bytes(l.bits, l.cols);
  for (int before = 0; before < low; before += plane_width(l.bits, before)) {
    start += (l.cols * plane_width(l.bits, before) + 511) / 512 * 64;
  }
  const int64_t in = col % (512 / p);
  return {start + col / (512 / p) * 64 + in % 64, static_cast<int>(in / 64) * p};
}

/// The code of (row, col).
TX_HD int code_at(const CodeLayout& l, const uint8_t* codes, int64_t row, int64_t col) {
  int code = 0;
  for (int low = 0; low < l.bits;) {
    const int p = plane_width(l.bits, low);
    const Field f = code_field(l, low, p, row, col);
    code |= (codes[f.byte] >> f.shift & ((1 << p) - 1)) << low;
    low += p;
  }
  return code;
}

/// Sets the code of (row r, column c) of one tile4 group whose bytes were zero.
TX_HD void put_tile_code(uint8_t* group, int bits, int r, int c, int code) {
  for (int low = 0; low < bits;) {
    const int p = plane_width(bits, low);
    const Field f = tile_field(low, p, r, c);
    group[f.byte] = static_cast<uint8_t>(group[f.byte] | (code >> low & ((1 << p) - 1)) << f.shift);
    low += p;
  }
}

}  // namespace torchext
