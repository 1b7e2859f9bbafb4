// Column sums of tile4 codes against rounded residuals, and, in an epoch, the update that follows.
#pragma once

#include "epoch_step.cuh"
#include "tile_products.h"

namespace torchext::cuda {

/// A block takes 16 groups of columns and a split of the tiles, kOut vectors. Four warps take the
/// groups, eight lanes each, two such rows of warps take tiles in turn; a lane keeps the levels of
/// its four columns and their sums.
template <int kBits, bool kTable, int kOut>
struct TileSums {
  using Params = SumParams;
  static constexpr int kThreads = 256, kTeams = 2;
  static_assert(kThreads == kUpdateThreads);

  /// Shared memory: bytes of the residuals [kOut][rows of a split], then 256 floats and a flag.
  static size_t shared_bytes(int64_t split_tiles) {
    return static_cast<size_t>(kOut * 64 * split_tiles + 4 * (kUpdateThreads + 4));
  }

  struct Place {
    int64_t block, first, end;  // 64 columns; tiles [first, end)
    int vector, plane, book;
  };
  TX_DEVICE static Place place_of(const Params& p, const Thread& t) {
    const int64_t blocks = (p.a.cols + 63) / 64, split = t.block() / blocks;
    const int64_t first = split * p.split_tiles, end = first + p.split_tiles;
    const int sets = p.a.planes * p.a.books, set = static_cast<int>(t.row()) % sets;
    return {t.block() % blocks,
            first,
            end < p.a.tiles ? end : p.a.tiles,
            static_cast<int>(t.row()) / sets * kOut,
            set / p.a.books,
            set % p.a.books};
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Place at = place_of(p, t);
    auto* residuals = t.shared<uint32_t>();
    const int64_t wide = 16 * p.split_tiles;  // words a vector
    auto* floats = reinterpret_cast<float*>(residuals + kOut * wide);
    fill_residuals(p, t, at, reinterpret_cast<int8_t*>(residuals));
    t.sync();
    int32_t acc[kOut][4] = {};
    multiply(p, t, at, wide, residuals, acc);
    const int u = t.lane() % 8;
    const int64_t j = 4 * group_of(t, at) + u;
    TX_UNROLL
    for (int o = 0; o < kOut; ++o) {
      int32_t mine = 0;
      TX_UNROLL
      for (int c = 0; c < 4; ++c) {
        int32_t v = acc[o][c];
        v += t.shuffle_xor(v, 1);
        v += t.shuffle_xor(v, 2);
        v += t.shuffle_xor(v, 4);
        mine = u == c ? v : mine;
      }
      if (u < 4 && j < p.a.cols && at.vector + o < p.vectors) {
        const int64_t np = (p.a.cols + 63) / 64 * 64;
        t.add(p.sums + at.first / p.slab_tiles * p.slab_sums +
                  ((at.vector + o) * p.a.planes + at.plane) * np + j,
              mine);
      }
    }
    if (p.q == nullptr) finish_columns(p, t, at, floats);
  }

  TX_DEVICE static int64_t group_of(const Thread& t, const Place& at) {
    return 16 * at.block + 4 * (t.warp() % 4) + t.lane() / 8;
  }

  /// The residuals' integers of this split, in the order in which lanes hold their rows: rounded
  /// here, or as given.
  TX_DEVICE static void fill_residuals(const Params& p, const Thread& t, const Place& at,
                                       int8_t* to) {
    const EpochStep& s = p.step;
    const int64_t capacity = 64 * p.split_tiles, rows = 64 * (at.end - at.first);
    const int source = p.a.books - 1 - at.book;  // each draw meets the residual of the other one
    if (p.q != nullptr) {
      const int64_t from = 64 * at.first;
      for (int o = 0; o < kOut; ++o) {
        for (int64_t k = t.thread(); k < rows; k += kThreads) {
          const int8_t q =
              at.vector + o < p.vectors ? p.q[(at.vector + o) * p.q_stride + from + k] : int8_t{0};
          to[o * capacity + k / 64 * 64 + row_place<kBits, kTable>(static_cast<int>(k % 64))] = q;
        }
      }
      return;
    }
    const Key key = step_key(s, Purpose::kAct);
    const auto top = static_cast<int32_t>(top_of(s.residual_bits));
    for (int o = 0; o < kOut; ++o) {
      const int64_t vector = at.vector + o;
      int32_t sum = 0;
      const float inverse =
          vector < p.vectors ? spacing_of(s.e_peak[vector], s.residual_bits).inverse : 0.0f;
      for (int64_t k = 8 * t.thread(); k < rows; k += 8 * kThreads) {
        const int64_t row = 64 * at.first + k;
        float e[8] = {};
        if (vector < p.vectors) load<8>(s.e + (vector * s.books + source) * s.batch_rows + row, e);
        const Words draws = draw4(key, static_cast<uint64_t>(row) / 8,
                                  static_cast<uint32_t>(vector), static_cast<uint32_t>(source));
        TX_UNROLL
        for (int i = 0; i < 8; ++i) {
          const int32_t q = round_one(e[i], inverse, uniform16(draws, i), top);
          sum += q;
          to[o * capacity + k / 64 * 64 + row_place<kBits, kTable>(static_cast<int>(k % 64) + i)] =
              static_cast<int8_t>(q);
        }
      }
      sum = warp_sum(sum, t);
      if (t.lane() == 0 && at.plane == 0 && vector < p.vectors)
        t.add(s.eq_sum + at.block * s.outputs + vector, sum);
    }
  }

  TX_DEVICE static void multiply(const Params& p, const Thread& t, const Place& at, int64_t wide,
                                 const uint32_t* residuals, int32_t (&acc)[kOut][4]) {
    const TileRange tiles = tiles_of(p.a, p.step, p.q != nullptr);
    const int64_t g = group_of(t, at), end = at.end < tiles.count ? at.end : tiles.count;
    if (4 * g >= p.a.cols || at.first >= end) return;
    const int u = t.lane() % 8;
    LevelTable<kBits> table[4];
    if constexpr (kTable) {
      const uint8_t* levels =
          p.a.table + ((static_cast<int64_t>(at.plane * p.a.books + at.book) * p.a.cols) << kBits);
      TX_UNROLL
      for (int c = 0; c < 4; ++c) {
        const int64_t j = 4 * g + c;
        table[c].load(levels + ((j < p.a.cols ? j : p.a.cols - 1) << kBits));
      }
    }
    const uint8_t* from = tiles.codes + g * 32 * kBits;
    constexpr int kAhead = kBits > 2 ? 2 : kOut == 1 ? 4 : 3;  // tiles in flight
    for (int64_t tile = at.first + t.warp() / 4; tile < end; tile += kAhead * kTeams) {
      LaneCodes<kBits> codes[kAhead];
      TX_UNROLL
      for (int r = 0; r < kAhead; ++r) {
        if (tile + r * kTeams < end) {
          codes[r].load(from + (tile + r * kTeams) * tiles.bytes, u);
        } else {
          codes[r].clear();
        }
      }
      TX_UNROLL
      for (int r = 0; r < kAhead; ++r) {
        if (tile + r * kTeams >= end) break;
        const LaneColumns<kBits, kTable> lanes(codes[r]);
        const uint32_t* e = residuals + 16 * (tile + r * kTeams - at.first) + 2 * u;
        TX_UNROLL
        for (int c = 0; c < 4; ++c) {
          const uint32_t low = lanes.word(c, 0, table[c]), high = lanes.word(c, 1, table[c]);
          TX_UNROLL
          for (int o = 0; o < kOut; ++o) {
            acc[o][c] = dp4a_unsigned(low, e[o * wide], acc[o][c]);
            acc[o][c] = dp4a_unsigned(high, e[o * wide + 1], acc[o][c]);
          }
        }
      }
    }
  }

  /// Integer sums of a column of output o, which become 0 again.
  struct Taken {
    int32_t low, high;
  };
  TX_DEVICE static Taken take(const Params& p, int64_t o, int64_t j) {
    int32_t* from = p.sums + o * p.a.planes * p.step.np + j;
    Taken v{load_past(from), 0};
    *from = 0;
    if (p.a.planes == 2) {
      v.high = load_past(from + p.step.np);
      from[p.step.np] = 0;
    }
    return v;
  }

  /// The last block of 64 columns updates them, or leaves their gradient to be rounded.
  TX_DEVICE static void finish_columns(const Params& p, const Thread& t, const Place& at,
                                       float* shared) {
    const EpochStep& s = p.step;
    int* flag = reinterpret_cast<int*>(shared + kUpdateThreads);
    const int64_t splits = (p.a.tiles + p.split_tiles - 1) / p.split_tiles, blocks = s.np / 64;
    const auto expected = static_cast<uint32_t>(splits * s.planes * s.books);
    if (!last_to_arrive(t, s.columns_done + at.vector * blocks + at.block, expected, flag)) return;
    const BatchRows rows = rows_of(s);
    const int c = t.thread() % 64, k = t.thread() / 64;
    const int64_t o = at.vector + k, j = 64 * at.block + c;
    const bool active = k < kOut && o < s.outputs;
    float g = 0.0f;
    if (active) {
      int32_t* count = s.eq_sum + at.block * s.outputs + o;
      const int32_t total = load_past(count);
      if (j < s.cols) {
        const Taken sum = take(p, o, j);
        const float scale = spacing_of(s.e_peak[o], s.residual_bits).used /
                            static_cast<float>(rows.count * s.books);
        g = cpu::gradient_rule(sum.low, sum.high, s.planes == 2, s.grid[2 * j], s.grid[2 * j + 1],
                               static_cast<float>(total), scale);
      }
      if (at.block == 0 && c == 0) s.eq_total[o] = total;
    }
    t.sync();  // everyone has read the count
    if (active && c == 0) s.eq_sum[at.block * s.outputs + o] = 0;
    if (s.gradient_bits != 0) {
      if (active) s.gradient[o * s.np + j] = g;
      raise_peak(t, s.g_peak + (active ? o : 0), active ? magnitude_bits(g) : 0);
      return;
    }
    update_columns(s, t, at.block, at.vector, kOut, rows.count > 0, shared,
                   [g](int64_t, int64_t) { return g; });
    finish_outputs(s, t, at.vector, kOut, flag);
  }
};

}  // namespace torchext::cuda
