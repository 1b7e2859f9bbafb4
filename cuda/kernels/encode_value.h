// What the passes of the encoder share on CUDA: the value at a row and column, and how warps hold
// tiles.
#pragma once

#include <cmath>

#include "encode_columns.h"
#include "encode_search.h"

namespace torchext::cuda {

constexpr int kGroup = 4;                       // columns of a tile4 group
constexpr int kLanes = 32 / kGroup;             // rows that a warp holds at a time
constexpr int kRowsALane = kTileRows / kLanes;  // of a tile

TX_HD constexpr int64_t encode_chunks(int64_t rows) {
  return (rows + cpu::kEncodeChunk - 1) / cpu::kEncodeChunk;
}

/// Doubles of a chunk's sums.
TX_HD constexpr int64_t encode_sums(int64_t outputs, int64_t cols) {
  return (cpu::kMoments + cpu::kOutputSums * outputs) * cols;
}

/// Four columns of a chunk in a warp; lane 4 r + c has row r of 8 and column c, so that its sums
/// are a lane of the CPU's and its bytes are its own.
struct GroupOfChunk {
  int64_t chunk, group, col, begin, end;
  int row;      // of eight
  bool real;    // a lane beyond the columns joins the exchanges
  bool writes;  // the column's sums

  TX_DEVICE GroupOfChunk(const EncodeParams& p, int64_t at, int lane) {
    const int64_t groups = (p.cols + kGroup - 1) / kGroup,
                  own = kGroup * (at % groups) + lane % kGroup;
    chunk = at / groups;
    group = at % groups;
    real = own < p.cols;
    col = real ? own : p.cols - 1;
    begin = chunk * cpu::kEncodeChunk;
    end = begin + cpu::kEncodeChunk < p.rows ? begin + cpu::kEncodeChunk : p.rows;
    row = lane / kGroup;
    writes = real && lane < kGroup;
  }
  TX_DEVICE static int64_t count(const EncodeParams& p) {
    return (p.cols + kGroup - 1) / kGroup * encode_chunks(p.rows);
  }
};

/// Joins the eight lanes of a column by 4, 2, 1: the order of the CPU's sums.
TX_DEVICE double join_lanes(double sum, const Thread& t) {
  for (int half = 16; half >= kGroup; half /= 2) sum += t.shuffle_xor(sum, half);
  return sum;
}

TX_DEVICE Key data_key(const EncodeParams& p) {
  return fold_in(fold_in(Key{p.key[0], p.key[1]}, Purpose::kData), p.copy);
}

TX_DEVICE double weight_of(const EncodeParams& p, int64_t row) {
  return p.weight != nullptr ? p.weight[row] : 1.0;
}

/// unit(draw1(..)) of an element, by selects, because a Philox block that is indexed would lie in
/// memory.
TX_DEVICE float uniform_of(Key key, uint64_t element, uint32_t draw) {
  const Words r = draw4(key, element / 4, 0, draw);
  const uint32_t c = static_cast<uint32_t>(element) % 4;
  return unit(c < 2 ? (c == 0 ? r.w[0] : r.w[1]) : (c == 2 ? r.w[2] : r.w[3]));
}

struct EncodedValue {
  float a, q, q2;
  double v;
  uint32_t code;
};

/// The value at a row and column, scaled and encoded.
template <cpu::EncodeMode kMode>
TX_DEVICE EncodedValue encode_value(const EncodeParams& p, const ColumnSearch& search, Key key,
                                    int64_t row, int64_t col) {
  constexpr bool kTwice = kMode == cpu::EncodeMode::twice;
  const int64_t from = row * p.row_stride + col;
  const double x = p.f64 ? static_cast<const double*>(p.x)[from]
                         : static_cast<double>(static_cast<const float*>(p.x)[from]);
  const auto a = static_cast<float>((x - search.mean()) / search.scale());
  const EncodeCell cell = search.find(a);
  auto code = static_cast<uint32_t>(cell.index);
  if (kMode == cpu::EncodeMode::nearest) {
    const bool up =
        !search.rounded() && cell.upper > cell.lower && a > (cell.lower + cell.upper) / 2.0f;
    const float q = up ? cell.upper : cell.lower;
    return {a, q, q, 0.0, code + (up ? 1u : 0u)};
  }
  const float rise = a - cell.lower, width = cell.upper - cell.lower;
  const float f = rise / width;
  const int64_t position = p.position != nullptr ? p.position[row] : p.row0 + row;
  const auto pitch = static_cast<uint64_t>((p.cols + 63) / 64 * 64);
  const uint64_t element = static_cast<uint64_t>(position) * pitch + static_cast<uint64_t>(col);
  const bool two = width > 0.0f;  // a column of one level keeps code 0
  const bool up = two && uniform_of(key, element, 0) < f;
  const float q = up ? cell.upper : cell.lower;
  double v = (static_cast<double>(cell.upper) - a) * (static_cast<double>(a) - cell.lower);
  v = v > 0.0 ? v : 0.0;
  if (!kTwice) return {a, q, q, v, code + (up ? 1u : 0u)};
  const bool up2 = two && uniform_of(key, element, 1) < f;
  code |= (up ? 1u : 0u) << (p.bits - 2) | (up2 ? 1u : 0u) << (p.bits - 1);
  return {a, q, up2 ? cell.upper : cell.lower, v, code};
}

}  // namespace torchext::cuda
