// Where the bits of a code lie: planes, and the three layouts of a store (docs: store format).
//
// A b-bit code is split into planes of 1, 2, 4 or 8 bits, low bits first, because only those widths
// divide a byte. A plane of p bits keeps 8/p fields in a byte; field f sits at bits p*f .. p*f+p-1.
#pragma once

#include <cstdint>

#include "philox.h"

namespace torchext {

enum class Layout : int { tile4 = 0, block = 1, row = 2 };

constexpr int kTileRows = 64;    // rows of one tile of tile4
constexpr int kBlockRows = 128;  // rows of one block of the block layout

/// Plane k holds bits shift[k] .. shift[k]+width[k]-1 of a code; `shift` is also the number of
/// plane bits that precede it in the file.
struct Planes {
  int count;
  int width[3];
  int shift[3];
};

/// Planes of a width that a store may have: 1..8 (3 = 2+1, 5 = 4+1, 6 = 4+2, 7 = 4+2+1) or 16
/// (8+8).
TX_HD constexpr Planes planes_of(int bits) {
  Planes p{0, {0, 0, 0}, {0, 0, 0}};
  for (int done = 0; done < bits;) {
    const int rest = bits - done;
    const int width = rest >= 8 ? 8 : rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
    p.width[p.count] = width;
    p.shift[p.count++] = done;
    done += width;
  }
  return p;
}

TX_HD bool valid_bits(int64_t bits) { return (bits >= 1 && bits <= 8) || bits == 16; }

/// Rows that are packed together: a thread must own whole units.
TX_HD int64_t layout_unit_rows(Layout layout) {
  return layout == Layout::tile4 ? kTileRows : layout == Layout::block ? kBlockRows : 1;
}

TX_HD int64_t layout_row_plane_bytes(int64_t cols, int width) {
  return (cols * width + 511) / 512 * 64;
}

/// Bytes of one unit: a tile, a block or a row with all its columns.
TX_HD int64_t layout_unit_bytes(Layout layout, int64_t cols, int bits) {
  if (layout == Layout::tile4) return (cols + 3) / 4 * 32 * bits;
  if (layout == Layout::block) return cols * 16 * bits;
  int64_t bytes = 0;
  const Planes p = planes_of(bits);
  for (int k = 0; k < p.count; ++k) bytes += layout_row_plane_bytes(cols, p.width[k]);
  return bytes;
}

/// Geometry of one copy of the codes.
struct CodeLayout {
  Layout kind;
  int bits;
  int64_t rows;
  int64_t cols;
};

TX_HD int64_t layout_bytes(const CodeLayout& l) {
  const int64_t unit = layout_unit_rows(l.kind);
  return (l.rows + unit - 1) / unit * layout_unit_bytes(l.kind, l.cols, l.bits);
}

/// Byte and bit position of one field, from the start of its column (tile4: group) or row.
struct FieldPlace {
  int64_t byte;
  int shift;
};

/// Where row `row` of a unit and column `col` lie in a plane of `width` bits that starts at bit
/// `before` of the code.
TX_HD FieldPlace field_place(Layout layout, int64_t row, int64_t col, int width, int before) {
  if (layout == Layout::tile4) {
    // Half-lines of 32 bytes for one bit, else lines of 64: byte 4r+c is row r of 16, column c
    // of 4.
    const int64_t base = 32 * before, c = col % 4;
    if (width == 1) return {base + 4 * (row % 8) + c, static_cast<int>(row / 8)};
    const int64_t per_line = 128 / width, in = row % per_line;
    return {base + row / per_line * 64 + 4 * (in % 16) + c, width * static_cast<int>(in / 16)};
  }
  if (layout == Layout::block) {
    const int64_t span = 16 * width;
    return {16 * before + row % span, width * static_cast<int>(row / span)};
  }
  const int64_t per_unit = 512 / width, in = col % per_unit;
  return {col / per_unit * 64 + in % 64, width * static_cast<int>(in / 64)};
}

/// Start, inside the unit, of the bytes that field_place counts from.
TX_HD int64_t field_base(Layout layout, int64_t col, int64_t cols, int bits, int plane) {
  if (layout == Layout::tile4) return col / 4 * 32 * bits;
  if (layout == Layout::block) return col * 16 * bits;
  const Planes p = planes_of(bits);
  int64_t base = 0;
  for (int k = 0; k < plane; ++k) base += layout_row_plane_bytes(cols, p.width[k]);
  return base;
}

/// The code of (row, col).
TX_HD int code_at(const CodeLayout& l, const uint8_t* codes, int64_t row, int64_t col) {
  const int64_t unit_rows = layout_unit_rows(l.kind);
  codes += row / unit_rows * layout_unit_bytes(l.kind, l.cols, l.bits);
  const Planes planes = planes_of(l.bits);
  int code = 0;
  for (int k = 0; k < planes.count; ++k) {
    const int width = planes.width[k];
    const FieldPlace at = field_place(l.kind, row % unit_rows, col, width, planes.shift[k]);
    const uint8_t byte = codes[field_base(l.kind, col, l.cols, l.bits, k) + at.byte];
    code |= (byte >> at.shift & ((1 << width) - 1)) << planes.shift[k];
  }
  return code;
}

/// Sets the code of a row of a tile and one of the four columns of a tile4 group, whose bits were
/// zero.
TX_HD void put_tile_code(uint8_t* group, int bits, int64_t row, int64_t col, int code) {
  const Planes planes = planes_of(bits);
  for (int k = 0; k < planes.count; ++k) {
    const FieldPlace at = field_place(Layout::tile4, row, col, planes.width[k], planes.shift[k]);
    const int field = code >> planes.shift[k] & ((1 << planes.width[k]) - 1);
    group[at.byte] = static_cast<uint8_t>(group[at.byte] | field << at.shift);
  }
}

namespace cpu {

/// Packs row-major codes [rows, cols] (uint8, or uint16 for 16 bits) of the units [begin, end) into
/// `out`, the start of the whole copy. Padding codes become 0.
void pack_codes_ref(Layout layout, const void* codes, int64_t rows, int64_t cols, int bits,
                    uint8_t* out, int64_t begin, int64_t end) noexcept;

/// The inverse; reads only the given units of `packed`.
void unpack_codes_ref(Layout layout, const uint8_t* packed, int64_t rows, int64_t cols, int bits,
                      void* codes, int64_t begin, int64_t end) noexcept;

/// The same for tile4, four codes at a time (the two above define the result).
void pack_tile4(const void* codes, int64_t rows, int64_t cols, int bits, uint8_t* out,
                int64_t begin, int64_t end) noexcept;
void unpack_tile4(const uint8_t* packed, int64_t rows, int64_t cols, int bits, void* codes,
                  int64_t begin, int64_t end) noexcept;

constexpr int64_t kPermuteBytes = int64_t{16}
                                  << 20;  // working memory of permute_tile4, or 4 bytes a row

/// Moves rows of tile4 codes: row i of `out` is row order[i] of `packed`, for the column groups
/// [begin, end). False if there is no memory for a strip of columns.
bool permute_tile4(const uint8_t* packed, const int64_t* order, int64_t rows, int64_t cols,
                   int bits, uint8_t* out, int64_t begin, int64_t end) noexcept;

}  // namespace cpu
}  // namespace torchext
