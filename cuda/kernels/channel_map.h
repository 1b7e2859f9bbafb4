// Which channel an element belongs to: (i / inner) % channels, without a division per element.
#pragma once

#include "launch.h"

namespace torchext::cuda {

constexpr int kTile =
    1024;  // elements of a warp's turn: a chunk of tree_sum, 8 rows of four a lane

/// a / d for 0 <= a <= 1024, as a product: exact because 1024 / 2^21 < 1 / d.
struct SmallDivisor {
  uint32_t factor;

  explicit SmallDivisor(int64_t d)
      : factor((1u << 21) / static_cast<uint32_t>(d < 1           ? 1
                                                  : d < 2 * kTile ? d
                                                                  : 2 * kTile) +
               1) {}
  TX_DEVICE static int divide(uint32_t factor, int a) {
    return static_cast<int>(static_cast<uint32_t>(a) * factor >> 21);
  }
};

/// The channels of a tensor, part of a kernel's parameters.
struct ChannelMap {
  int64_t channels = 1, inner = 1;
  uint32_t per_run = 0, per_turn = 0;  // divide by inner and by channels

  ChannelMap() = default;
  ChannelMap(int64_t channel_count, int64_t run)
      : channels(channel_count),
        inner(run),
        per_run(SmallDivisor(run).factor),
        per_turn(SmallDivisor(channel_count).factor) {}
};

/// The channels of one tile, from one 64-bit division.
class TileChannels {
 public:
  TX_DEVICE TileChannels(const ChannelMap& map, int64_t first) : map_(map) {
    if (map.channels == 1) return;
    const int64_t run = first / map.inner, rest = map.inner - (first - run * map.inner);
    first_ = run % map.channels;
    if (rest < kTile) rest_ = static_cast<int>(rest);
  }

  /// All elements have the channel first().
  TX_DEVICE bool single() const { return rest_ == kTile; }
  TX_DEVICE int64_t first() const { return first_; }

  /// Channel of element j < 1024 of the tile.
  TX_DEVICE int64_t at(int j) const {
    if (j < rest_) return first_;
    const int runs = 1 + SmallDivisor::divide(map_.per_run, j - rest_);
    int64_t channel = first_ + runs;
    if (channel < map_.channels) return channel;
    channel -= map_.channels;  // below 1024
    const int left = static_cast<int>(channel);
    return channel -
           SmallDivisor::divide(map_.per_turn, left) * static_cast<int64_t>(map_.channels);
  }

  /// Element e of a lane's four may have another channel than the one before it.
  TX_DEVICE bool changes(int e) const { return !single() && (e == 0 || map_.inner % 4 != 0); }

 private:
  const ChannelMap& map_;
  int64_t first_ = 0;
  int rest_ = kTile;  // elements before the first change
};

/// Runs body(first element, number of elements) for the tiles of the thread's warp; all lanes take
/// part.
template <class Body>
TX_DEVICE void over_tiles(const Thread& t, int64_t n, const Body& body) {
  const int warps = t.threads() / 32;
  const int64_t tiles = (n + kTile - 1) / kTile;
  for (int64_t tile = t.block() * warps + t.warp(); tile < tiles; tile += t.blocks() * warps)
    body(tile * kTile, tile + 1 < tiles ? kTile : static_cast<int>(n - tile * kTile));
}

}  // namespace torchext::cuda
