// tile4 by whole words: a word holds one row of a group's four columns, a byte each, and every
// plane's line holds fields of such words, so that four codes move at a time.
#include <cstring>
#include <memory>
#include <new>

#include "kernels/layout.h"

namespace torchext::cpu {
namespace {

constexpr uint32_t kBytes = 0x01010101u;

/// One plane of kWidth bits from bit `shift` of 64 words; the widths are constants so that loops
/// vectorise.
template <int kWidth>
void put_plane(const uint32_t* word, int shift, uint8_t* out) {
  constexpr int kFields = 8 / kWidth, kRows = kWidth == 1 ? 8 : 16,
                kLines = kWidth == 1 ? 1 : kWidth / 2;
  constexpr uint32_t kMask = kBytes * ((1u << kWidth) - 1u);
  for (int h = 0; h < kLines; ++h) {
    uint32_t line[kRows] = {};
    for (int f = 0; f < kFields; ++f) {
      const uint32_t* from = word + kRows * (kFields * h + f);
      for (int r = 0; r < kRows; ++r) line[r] |= (from[r] >> shift & kMask) << (kWidth * f);
    }
    std::memcpy(out + 64 * h, line, sizeof line);
  }
}

template <int kWidth>
void get_plane(const uint8_t* in, int shift, uint32_t* word) {
  constexpr int kFields = 8 / kWidth, kRows = kWidth == 1 ? 8 : 16,
                kLines = kWidth == 1 ? 1 : kWidth / 2;
  constexpr uint32_t kMask = kBytes * ((1u << kWidth) - 1u);
  for (int h = 0; h < kLines; ++h) {
    uint32_t line[kRows];
    std::memcpy(line, in + 64 * h, sizeof line);
    for (int f = 0; f < kFields; ++f) {
      uint32_t* to = word + kRows * (kFields * h + f);
      for (int r = 0; r < kRows; ++r) to[r] |= (line[r] >> (kWidth * f) & kMask) << shift;
    }
  }
}

/// The planes of the low `bits` <= 8 bits of 64 words; returns the end of what it wrote.
uint8_t* put_words(const uint32_t* word, int bits, uint8_t* out) {
  const Planes planes = planes_of(bits);
  for (int k = 0; k < planes.count; out += 32 * planes.width[k++]) {
    switch (planes.width[k]) {
      case 8: put_plane<8>(word, 0, out); break;
      case 4: put_plane<4>(word, planes.shift[k], out); break;
      case 2: put_plane<2>(word, planes.shift[k], out); break;
      default: put_plane<1>(word, planes.shift[k], out);
    }
  }
  return out;
}

/// The inverse; returns the end of what it read.
const uint8_t* get_words(const uint8_t* in, int bits, uint32_t* word) {
  std::memset(word, 0, kTileRows * sizeof(uint32_t));
  const Planes planes = planes_of(bits);
  for (int k = 0; k < planes.count; in += 32 * planes.width[k++]) {
    switch (planes.width[k]) {
      case 8: get_plane<8>(in, 0, word); break;
      case 4: get_plane<4>(in, planes.shift[k], word); break;
      case 2: get_plane<2>(in, planes.shift[k], word); break;
      default: get_plane<1>(in, planes.shift[k], word);
    }
  }
  return in;
}

/// Up to four neighbouring codes as one word; a full group is a plain load or store.
inline uint32_t load_codes(const uint8_t* from, int64_t columns) {
  uint32_t word = 0;
  if (columns == 4) {
    std::memcpy(&word, from, 4);
  } else {
    for (int64_t c = 0; c < columns; ++c) word |= uint32_t{from[c]} << (8 * c);
  }
  return word;
}

inline void store_codes(uint8_t* to, uint32_t word, int64_t columns) {
  if (columns == 4) {
    std::memcpy(to, &word, 4);
  } else {
    for (int64_t c = 0; c < columns; ++c) to[c] = static_cast<uint8_t>(word >> (8 * c));
  }
}

/// Words of 64 rows for each byte of a code: one, or two for 16 bits.
struct Words64 {
  uint32_t byte[2][kTileRows];
};

void put_group(const Words64& words, int bits, uint8_t* out) {
  out = put_words(words.byte[0], bits > 8 ? 8 : bits, out);
  if (bits > 8) put_words(words.byte[1], bits - 8, out);
}

void get_group(const uint8_t* in, int bits, Words64* words) {
  in = get_words(in, bits > 8 ? 8 : bits, words->byte[0]);
  if (bits > 8) get_words(in, bits - 8, words->byte[1]);
}

}  // namespace

void pack_tile4(const void* codes, int64_t rows, int64_t cols, int bits, uint8_t* out,
                int64_t begin, int64_t end) noexcept {
  const auto* narrow = static_cast<const uint8_t*>(codes);
  const auto* wide = static_cast<const uint16_t*>(codes);
  const int64_t groups = (cols + 3) / 4;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t row = tile * kTileRows, count = rows - row < kTileRows ? rows - row : kTileRows;
    for (int64_t g = 0; g < groups; ++g) {
      Words64 words{};
      const int64_t columns = cols - 4 * g < 4 ? cols - 4 * g : 4;
      for (int64_t r = 0; r < count; ++r) {
        const int64_t at = (row + r) * cols + 4 * g;
        if (bits <= 8) {
          words.byte[0][r] = load_codes(narrow + at, columns);
          continue;
        }
        for (int64_t c = 0; c < columns; ++c) {
          words.byte[0][r] |= (uint32_t{wide[at + c]} & 255u) << (8 * c);
          words.byte[1][r] |= (uint32_t{wide[at + c]} >> 8) << (8 * c);
        }
      }
      put_group(words, bits, out + (tile * groups + g) * 32 * bits);
    }
  }
}

void unpack_tile4(const uint8_t* packed, int64_t rows, int64_t cols, int bits, void* codes,
                  int64_t begin, int64_t end) noexcept {
  auto* narrow = static_cast<uint8_t*>(codes);
  auto* wide = static_cast<uint16_t*>(codes);
  const int64_t groups = (cols + 3) / 4;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t row = tile * kTileRows, count = rows - row < kTileRows ? rows - row : kTileRows;
    for (int64_t g = 0; g < groups; ++g) {
      Words64 words;
      get_group(packed + (tile * groups + g) * 32 * bits, bits, &words);
      const int64_t columns = cols - 4 * g < 4 ? cols - 4 * g : 4;
      for (int64_t r = 0; r < count; ++r) {
        const int64_t at = (row + r) * cols + 4 * g;
        if (bits <= 8) {
          store_codes(narrow + at, words.byte[0][r], columns);
          continue;
        }
        for (int64_t c = 0; c < columns; ++c) {
          const uint32_t low = words.byte[0][r] >> (8 * c) & 255u,
                         high = words.byte[1][r] >> (8 * c) & 255u;
          wide[at + c] = static_cast<uint16_t>(low | high << 8);
        }
      }
    }
  }
}

bool permute_tile4(const uint8_t* packed, const int64_t* order, int64_t rows, int64_t cols,
                   int bits, uint8_t* out, int64_t begin, int64_t end) noexcept {
  const int64_t groups = (cols + 3) / 4, tiles = (rows + kTileRows - 1) / kTileRows;
  // A row of a strip is a line of words. Narrow codes of several groups share one; codes of 16 bits
  // take two.
  const int width = bits <= 1 ? 1 : bits <= 2 ? 2 : bits <= 4 ? 4 : 8;
  const int64_t share = 8 / width, bytes = bits > 8 ? 2 : 1, most = kPermuteBytes / (rows * 4);
  const int64_t words = most < bytes ? bytes : most > 16 ? 16 : most / bytes * bytes;
  const int64_t strip = words / bytes * share;  // groups
  const std::unique_ptr<uint32_t[]> memory(
      new (std::nothrow) uint32_t[static_cast<size_t>(tiles * kTileRows * words + 15)]);
  if (memory == nullptr) return false;
  uint32_t* const buffer =
      memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64) % 64 / 4;
  for (int64_t first = begin; first < end; first += strip) {
    const int64_t last = first + strip < end ? first + strip : end;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      uint32_t* to = buffer + tile * kTileRows * words;
      for (int64_t g = first; g < last; g += share, to += bytes) {
        Words64 all, in;
        for (int64_t i = 0; i < share && g + i < last; ++i) {
          get_group(packed + (tile * groups + g + i) * 32 * bits, bits, i == 0 ? &all : &in);
          for (int64_t r = 0; r < kTileRows && i > 0; ++r)
            all.byte[0][r] |= in.byte[0][r] << (width * i);
        }
        for (int64_t b = 0; b < bytes; ++b) {
          for (int64_t r = 0; r < kTileRows; ++r) to[r * words + b] = all.byte[b][r];
        }
      }
    }
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = tile * kTileRows, count = rows - row < kTileRows ? rows - row : kTileRows;
      const int64_t ahead = rows - row - count < kTileRows ? rows - row - count : kTileRows;
      for (int64_t r = 0; r < ahead; ++r)  // lines of the next tile, from anywhere
        __builtin_prefetch(buffer + order[row + count + r] * words);
      const uint32_t* line[kTileRows];
      for (int64_t r = 0; r < count; ++r) line[r] = buffer + order[row + r] * words;
      int64_t word = 0;
      for (int64_t g = first; g < last; g += share) {
        Words64 moved{};
        for (int64_t b = 0; b < bytes; ++b, ++word) {
          for (int64_t r = 0; r < count; ++r) moved.byte[b][r] = line[r][word];
        }
        for (int64_t i = 0; i < share && g + i < last; ++i) {
          put_group(moved, bits, out + (tile * groups + g + i) * 32 * bits);
          for (int64_t r = 0; r < kTileRows; ++r) moved.byte[0][r] >>= width;
        }
      }
    }
  }
  return true;
}

}  // namespace torchext::cpu
