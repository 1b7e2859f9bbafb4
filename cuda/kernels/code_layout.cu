#include "code_layout.h"

namespace torchext::cuda {
namespace {

/// Calls visit(width, before) for the planes of a code, low bits first (kernels/layout.h).
template <class Visit>
TX_DEVICE void each_plane(int bits, const Visit& visit) {
  if (bits == 16) visit(8, 0);
  int before = bits == 16 ? 8 : 0;
  TX_UNROLL
  for (int width = 8; width > 0; width /= 2) {
    if (((bits == 16 ? 8 : bits) & width) == 0) continue;
    visit(width, before);
    before += width;
  }
}

/// Start of a plane's bytes for column `col` inside a unit (field_base), without arrays that a GPU
/// would keep in local memory.
TX_DEVICE int64_t plane_base(const CodeLayout& l, int64_t col, int before) {
  if (l.kind == Layout::tile4) return col / 4 * 32 * l.bits;
  if (l.kind == Layout::block) return col * 16 * l.bits;
  int64_t base = 0;
  each_plane(l.bits, [&](int width, int first) {
    if (first < before) base += layout_row_plane_bytes(l.cols, width);
  });
  return base;
}

TX_DEVICE int64_t unit_bytes(const CodeLayout& l) {
  if (l.kind == Layout::tile4) return (l.cols + 3) / 4 * 32 * l.bits;
  return plane_base(l, l.cols, l.bits);
}

/// The code of (row, col), as code_at.
TX_DEVICE int read_code(const CodeLayout& l, const uint8_t* codes, int64_t row, int64_t col) {
  const int64_t unit = layout_unit_rows(l.kind);
  codes += row / unit * unit_bytes(l);
  int code = 0;
  each_plane(l.bits, [&](int width, int before) {
    const FieldPlace at = field_place(l.kind, row % unit, col, width, before);
    const uint8_t byte = codes[plane_base(l, col, before) + at.byte];
    code |= (byte >> at.shift & ((1 << width) - 1)) << before;
  });
  return code;
}

struct UnpackCodes {
  using Params = PackParams;
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t count = p.layout.rows * p.layout.cols;
    for (int64_t i = t.index(); i < count; i += t.count()) {
      const int code = read_code(p.layout, p.packed, i / p.layout.cols, i % p.layout.cols);
      if (p.layout.bits > 8) {
        static_cast<uint16_t*>(p.codes)[i] = static_cast<uint16_t>(code);
      } else {
        static_cast<uint8_t*>(p.codes)[i] = static_cast<uint8_t>(code);
      }
    }
  }
};

/// A thread makes one byte: the fields of one plane that share it.
struct PackCodes {
  using Params = PackParams;
  static constexpr int kThreads = 256;

  TX_DEVICE static int code(const Params& p, int64_t row, int64_t col) {
    if (row >= p.layout.rows || col >= p.layout.cols) return 0;
    const int64_t i = row * p.layout.cols + col;
    return p.layout.bits > 8 ? static_cast<const uint16_t*>(p.codes)[i]
                             : static_cast<const uint8_t*>(p.codes)[i];
  }

  /// Row (of the unit) and column of field f of byte `byte` of a plane.
  struct Where {
    int64_t row, col;
  };
  TX_DEVICE static Where where(Layout kind, int64_t byte, int f, int width) {
    if (kind == Layout::tile4) {
      const int64_t c = byte % 4;
      if (width == 1) return {8 * f + byte / 4, c};
      return {byte / 64 * (128 / width) + 16 * f + byte % 64 / 4, c};
    }
    if (kind == Layout::block) return {16 * width * f + byte, 0};
    return {0, byte / 64 * (512 / width) + 64 * f + byte % 64};
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const CodeLayout& l = p.layout;
    const int64_t unit_rows = layout_unit_rows(l.kind), bytes = unit_bytes(l),
                  total = (l.rows + unit_rows - 1) / unit_rows * bytes;
    // Columns that share a stretch of bytes, and how long it is for one plane bit.
    const int64_t stretch = l.kind == Layout::tile4   ? 32 * l.bits
                            : l.kind == Layout::block ? 16 * l.bits
                                                      : bytes;
    for (int64_t i = t.index(); i < total; i += t.count()) {
      const int64_t unit = i / bytes, in_unit = i % bytes, in = in_unit % stretch;
      const int64_t col0 = in_unit / stretch * (l.kind == Layout::tile4 ? 4 : 1);
      uint8_t byte = 0;
      int64_t begin = 0;
      each_plane(l.bits, [&](int width, int before) {
        const int64_t end =
            begin + (l.kind == Layout::tile4   ? 32 * width
                     : l.kind == Layout::block ? 16 * width
                                               : layout_row_plane_bytes(l.cols, width));
        for (int f = 0; in >= begin && in < end && f < 8 / width; ++f) {
          const Where at = where(l.kind, in - begin, f, width);
          const int field =
              code(p, unit * unit_rows + at.row, col0 + at.col) >> before & ((1 << width) - 1);
          byte = static_cast<uint8_t>(byte | field << (width * f));
        }
        begin = end;
      });
      p.packed[i] = byte;
    }
  }
};

/// A thread makes one word: a field position of four columns.
struct MoveRows {
  using Params = MoveRowsParams;
  static constexpr int kThreads = 256;

  /// Word and shift of a row of a tile in a plane.
  TX_DEVICE static int64_t word_of(int64_t row, int width) {
    return width == 1 ? row % 8 : row / (128 / width) * 16 + row % 16;
  }
  TX_DEVICE static int shift_of(int64_t row, int width) {
    return width * static_cast<int>(width == 1 ? row / 8 : row % (128 / width) / 16);
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t groups = (p.cols + 3) / 4, words = 8 * p.bits,
                  total = (p.choice.count + 63) / 64 * groups * words;
    const auto* packed = reinterpret_cast<const uint32_t*>(p.packed);
    for (int64_t i = t.index(); i < total; i += t.count()) {
      const int64_t in = i % words, block = i / words, tile = block / groups, g = block % groups;
      uint32_t word = 0;
      each_plane(p.bits, [&](int width, int before) {
        const int64_t at = in - 8 * before;
        if (at < 0 || at >= 8 * width) return;
        for (int f = 0; f < 8 / width; ++f) {
          const int64_t row = width == 1 ? 8 * f + at : at / 16 * (128 / width) + 16 * f + at % 16;
          const int64_t from = p.choice.at(64 * tile + row);
          if (from < 0) continue;
          const int64_t inside = from % 64;
          const uint32_t found =
              packed[(from / 64 * groups + g) * words + 8 * before + word_of(inside, width)];
          const uint32_t mask = 0x01010101u * ((1u << width) - 1u);
          word |= (found >> shift_of(inside, width) & mask) << (width * f);
        }
      });
      reinterpret_cast<uint32_t*>(p.out)[i] = word;
    }
  }
};

struct DecodeRows {
  using Params = DecodeParams;
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t cols = p.layout.cols;
    for (int64_t i = t.index(); i < p.choice.count * cols; i += t.count()) {
      const int64_t row = p.choice.at(i / cols), j = i % cols;
      float value = __builtin_nanf("");
      if (row >= 0 && p.dense != nullptr) {
        value = p.dense[row * p.dense_pitch + j];
      } else if (row >= 0) {
        int code = read_code(p.layout, p.packed, row, j);
        if (p.table != nullptr) {
          const int64_t entries = int64_t{1} << p.layout.bits;
          const uint8_t* entry = p.table + (p.book * cols + j) * entries + code;
          code = p.planes == 2 ? entry[0] | entry[p.books * cols * entries] << 8 : entry[0];
        }
        value = p.grid[2 * j] + p.grid[2 * j + 1] * static_cast<float>(code);
      }
      p.out[i / cols * p.pitch + j] = value;
    }
  }
};

}  // namespace

cudaError_t launch_move_rows(const MoveRowsParams& p, cudaStream_t stream) noexcept {
  const int64_t total = (p.choice.count + 63) / 64 * ((p.cols + 3) / 4) * 8 * p.bits;
  if (total == 0) return cudaSuccess;
  return launch<MoveRows>(p, {blocks_for(total, MoveRows::kThreads)}, stream);
}

cudaError_t launch_pack_codes(const PackParams& p, cudaStream_t stream) noexcept {
  const int64_t total = layout_bytes(p.layout);
  if (total == 0) return cudaSuccess;
  return launch<PackCodes>(p, {blocks_for(total, PackCodes::kThreads)}, stream);
}

cudaError_t launch_unpack_codes(const PackParams& p, cudaStream_t stream) noexcept {
  const int64_t total = p.layout.rows * p.layout.cols;
  if (total == 0) return cudaSuccess;
  return launch<UnpackCodes>(p, {blocks_for(total, UnpackCodes::kThreads)}, stream);
}

cudaError_t launch_decode_rows(const DecodeParams& p, cudaStream_t stream) noexcept {
  const int64_t total = p.choice.count * p.layout.cols;
  if (total == 0) return cudaSuccess;
  return launch<DecodeRows>(p, {blocks_for(total, DecodeRows::kThreads)}, stream);
}

}  // namespace torchext::cuda
