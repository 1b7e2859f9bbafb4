// Dots of tile4 codes with rounded models, and, in an epoch, the residuals that follow from them.
#pragma once

#include "epoch_step.cuh"
#include "tile_products.h"

namespace torchext::cuda {

/// A block takes kDotTiles tiles and a slice of the columns, kOut vectors. A warp takes four groups
/// of columns at a time, eight lanes each; a lane keeps the sums of its eight rows of every tile.
template <int kBits, bool kTable, int kOut>
struct TileDots {
  using Params = DotParams;
  static constexpr int kThreads = 256, kWarps = kThreads / 32, kRows = 64 * kDotTiles;

  /// Shared memory: the model's bytes [kOut][slice], then sums [kWarps][kOut][kRows], then a flag.
  static constexpr int64_t kSums = kWarps * kOut * kRows;
  static size_t shared_bytes(int64_t slice_columns) {
    return static_cast<size_t>(kOut * slice_columns + 4 * (kSums + 4));
  }

  struct Place {
    int64_t row_block, first, end;  // groups of columns [first, end)
    int vector, set;
  };
  TX_DEVICE static int64_t slice_groups(const Params& p) {
    const int64_t blocks = (p.a.cols + 63) / 64;
    return (blocks + p.slices - 1) / p.slices * 16;
  }
  TX_DEVICE static Place place_of(const Params& p, const Thread& t) {
    const int64_t groups = (p.a.cols + 3) / 4, wide = slice_groups(p);
    const int64_t first = t.block() % p.slices * wide, end = first + wide;
    const int sets = p.a.planes * p.a.books;
    return {t.block() / p.slices, first < groups ? first : groups, end < groups ? end : groups,
            static_cast<int>(t.row()) / sets * kOut, static_cast<int>(t.row()) % sets};
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Place at = place_of(p, t);
    auto* model = t.shared<uint32_t>();
    const int64_t wide = slice_groups(p);  // words a vector
    auto* sums = reinterpret_cast<int32_t*>(model + kOut * wide);
    fill_model(p, t, at, wide, model);
    t.sync();
    int32_t acc[kOut][kDotTiles][8] = {};
    multiply(p, t, at, wide, model, acc);
    const int u = t.lane() % 8;
    TX_UNROLL
    for (int o = 0; o < kOut; ++o) {
      TX_UNROLL
      for (int i = 0; i < kDotTiles * 8; ++i) {
        int32_t v = acc[o][i / 8][i % 8];
        v += t.shuffle_xor(v, 8);
        v += t.shuffle_xor(v, 16);
        if (t.lane() < 8) {
          const int row = 64 * (i / 8) + position_row<kBits, kTable>(u, i % 8);
          sums[(t.warp() * kOut + o) * kRows + row] = v;
        }
      }
    }
    t.sync();
    const int sets = p.a.planes * p.a.books;
    for (int i = t.thread(); i < kOut * kRows; i += kThreads) {
      const int o = i / kRows;
      const int64_t row = at.row_block * kRows + i % kRows;
      if (at.vector + o >= p.vectors || row >= 64 * p.a.tiles) continue;
      int32_t v = 0;
      TX_UNROLL
      for (int w = 0; w < kWarps; ++w) v += sums[w * kOut * kRows + i];
      t.add(p.dots + ((at.vector + o) * sets + at.set) * p.stride + row, v);
    }
    if (p.q == nullptr) finish_piece(p, t, at, reinterpret_cast<float*>(sums));
  }

  /// The model's integers of this slice: rounded here, or as given.
  TX_DEVICE static void fill_model(const Params& p, const Thread& t, const Place& at, int64_t wide,
                                   uint32_t* model) {
    const EpochStep& s = p.step;
    const Key key = p.q == nullptr ? step_key(s, Purpose::kModel) : Key{0, 0};
    const auto eights = static_cast<int>(wide / 2), used = static_cast<int>(at.end - at.first);
    for (int i = t.thread(); i < kOut * eights; i += kThreads) {
      const int o = i / eights, k = i % eights;
      const int64_t vector = at.vector + o, j = 4 * at.first + 8 * k;
      uint32_t words[2] = {};
      if (vector < p.vectors && 2 * k < used) {
        if (p.q != nullptr) {
          const auto* from = reinterpret_cast<const uint32_t*>(p.q + vector * p.q_stride + j);
          words[0] = from[0];
          words[1] = from[1];
        } else {
          const float inverse = spacing_of(s.model_scale[vector]).inverse;
          const auto top = static_cast<int32_t>(top_of(s.model_bits));
          const Words draws =
              draw4(key, static_cast<uint64_t>(j) / 8, static_cast<uint32_t>(vector), 0);
          float w[8];
          load<8>(s.w + vector * s.np + j, w);
          TX_UNROLL
          for (int c = 0; c < 8; ++c) {
            const int32_t q = round_one(w[c], inverse, uniform16(draws, c), top);
            words[c / 4] |= static_cast<uint32_t>(q & 255) << (8 * (c % 4));
          }
        }
      }
      model[o * wide + 2 * k] = words[0];
      model[o * wide + 2 * k + 1] = words[1];
    }
  }

  TX_DEVICE static void multiply(const Params& p, const Thread& t, const Place& at, int64_t wide,
                                 const uint32_t* model, int32_t (&acc)[kOut][kDotTiles][8]) {
    const TileRange tiles = tiles_of(p.a, p.step, p.q != nullptr);
    const int64_t tile = at.row_block * kDotTiles;
    if (tile >= tiles.count) return;
    const int u = t.lane() % 8;
    const uint8_t* levels = p.a.table;
    if constexpr (kTable) levels += (at.set * p.a.cols) << kBits;
    for (int64_t g = at.first + 4 * t.warp() + t.lane() / 8; g < at.end; g += 4 * kWarps) {
      LaneCodes<kBits> codes[kDotTiles];
      TX_UNROLL
      for (int r = 0; r < kDotTiles; ++r) {
        if (tile + r < tiles.count) {
          codes[r].load(tiles.codes + (tile + r) * tiles.bytes + g * 32 * kBits, u);
        } else {
          codes[r].clear();
        }
      }
      const uint32_t* w = model + (g - at.first);
      if constexpr (!kTable) {
        TX_UNROLL
        for (int o = 0; o < kOut; ++o) {
          const uint32_t four = w[o * wide];
          TX_UNROLL
          for (int i = 0; i < kDotTiles * 8; ++i)
            acc[o][i / 8][i % 8] =
                dp4a_unsigned(codes[i / 8].row(i % 8), four, acc[o][i / 8][i % 8]);
        }
      } else {
        uint32_t column[kDotTiles][2][4];
        LaneColumns<kBits, true> lanes[kDotTiles] = {LaneColumns<kBits, true>(codes[0]),
                                                     LaneColumns<kBits, true>(codes[1])};
        static_assert(kDotTiles == 2);
        TX_UNROLL
        for (int c = 0; c < 4; ++c) {
          const int64_t j = 4 * g + c;
          LevelTable<kBits> table;
          table.load(levels + ((j < p.a.cols ? j : p.a.cols - 1) << kBits));
          TX_UNROLL
          for (int i = 0; i < kDotTiles * 2; ++i)
            column[i / 2][i % 2][c] = lanes[i / 2].word(c, i % 2, table);
        }
        TX_UNROLL
        for (int i = 0; i < kDotTiles * 2; ++i) {
          uint32_t row[4];
          turn(column[i / 2][i % 2], row);
          TX_UNROLL
          for (int o = 0; o < kOut; ++o) {
            TX_UNROLL
            for (int k = 0; k < 4; ++k) {
              int32_t& sum = acc[o][i / 2][4 * (i % 2) + k];
              sum = dp4a_unsigned(row[k], w[o * wide], sum);
            }
          }
        }
      }
    }
  }

  /// The last block of a piece of 256 rows turns their dots into residuals.
  TX_DEVICE static void finish_piece(const Params& p, const Thread& t, const Place& at,
                                     float* shared) {
    const EpochStep& s = p.step;
    constexpr int kBlocks = static_cast<int>(kPieceRows / kRows);
    const int64_t row_blocks = (p.a.tiles + kDotTiles - 1) / kDotTiles,
                  piece = at.row_block / kBlocks, pieces = (row_blocks + kBlocks - 1) / kBlocks;
    const int64_t rest = row_blocks - piece * kBlocks;
    const int sets = s.planes * s.books;
    const auto expected =
        static_cast<uint32_t>(p.slices * sets * (rest < kBlocks ? rest : kBlocks));
    int* flag = reinterpret_cast<int*>(shared + kSums);
    if (!last_to_arrive(t, s.piece_done + at.vector * pieces + piece, expected, flag)) return;
    const BatchRows rows = rows_of(s);
    const int64_t k = piece * kPieceRows + t.thread();
    for (int i = 0; i < kOut * s.books; ++i) {
      const int64_t o = at.vector + i / s.books;
      const int book = i % s.books;
      if (o >= p.vectors) break;
      float e = 0.0f, loss = 0.0f;
      if (k < p.stride) {
        int32_t* dot = p.dots + (o * sets + book) * p.stride + k;
        const int32_t low = load_past(dot);
        *dot = 0;
        int32_t high = 0;
        if (s.planes == 2) {
          dot += s.books * p.stride;
          high = load_past(dot);
          *dot = 0;
        }
        const float z =
            cpu::prediction_rule(low, high, s.planes == 2, spacing_of(s.model_scale[o]).used,
                                 s.beta[o], offset_of(s, o));
        const cpu::Residual r = residual_at(s, rows, k, o, z);
        e = r.e;
        loss = r.loss;
        s.e[(o * s.books + book) * p.stride + k] = e;
      }
      shared[t.thread()] = loss;
      shared[kPieceRows + t.thread()] = e * e;
      t.sync();
      if (t.warp() == 0) {  // lanes of row mod 16: losses, then squares
        const float* from = shared + t.lane() / 16 * kPieceRows + t.lane() % 16;
        float sum = 0.0f;
        for (int row = 0; row < kPieceRows; row += 16) sum += from[row];
        s.lanes[((o * s.books + book) * pieces + piece) * 32 + t.lane()] = sum;
      }
      raise_peak(t, s.e_peak + o, magnitude_bits(e));
      t.sync();
    }
  }
  static_assert(kSums >= 2 * kPieceRows && kThreads == kPieceRows);
};

}  // namespace torchext::cuda
