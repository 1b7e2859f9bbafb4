// The turn of a warp, 1024 consecutive elements, and which channel each of them belongs to.
#pragma once

#include "formats.h"
#include "launch.h"

namespace torchext::cuda {

constexpr int kTileThreads = 256;  // of a block of kernels over tiles
constexpr int kTileWarps = kTileThreads / 32;

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

/// Runs a kernel whose warps go over the tiles of n elements.
template <class Kernel>
cudaError_t launch_tiles(const typename Kernel::Params& p, int64_t n, size_t shared,
                         cudaStream_t stream) noexcept {
  static_assert(Kernel::kThreads == kTileThreads);
  return launch<Kernel>(p, {blocks_for(n, int64_t{kTileWarps} * kTile), 1, shared}, stream);
}

}  // namespace torchext::cuda
