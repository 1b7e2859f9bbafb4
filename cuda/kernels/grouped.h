// Passes over all elements with a result for each channel, in an order in which every thread
// changes channel rarely. Only for results that do not depend on an order: maxima, counts, integer
// sums.
//
// A Visitor is made from the kernel's parameters and has
//   begin(channel)             before the first element of a channel
//   add(i, count)              elements i .. i+count-1, 1 <= count <= 4, all of the channel
//   flush(thread, channel)     by all lanes of a warp, after elements of one channel
//   flush_one(thread, channel) by one thread
#pragma once

#include "formats.h"

namespace torchext::cuda {

constexpr int kVisitThreads = 256;
constexpr int64_t kPiece = 4096;    // consecutive elements of a warp's turn
constexpr int64_t kShortRun = 128;  // below it a warp would be idle in a run
constexpr int64_t kMostVisitBlocks = 1024;

/// A warp takes pieces of runs of `inner` elements of one channel.
template <class Visitor>
struct VisitRuns {
  using Params = typename Visitor::Params;
  static constexpr int kThreads = kVisitThreads;
  static constexpr int kMinBlocks = 4;  // the compiler would rather have one more, and spill

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t inner = p.channels.inner, runs = (p.n + inner - 1) / inner,
                  pieces = (inner + kPiece - 1) / kPiece, items = runs * pieces,
                  warps = t.count() / 32, warp = t.index() / 32;
    const int64_t end = items * (warp + 1) / warps;
    Visitor visitor(p);
    int64_t channel = -1;
    for (int64_t item = items * warp / warps; item < end; ++item) {
      const int64_t run = item / pieces, now = run % p.channels.channels;
      if (now != channel) {
        if (channel >= 0) visitor.flush(t, channel);
        channel = now;
        visitor.begin(channel);
      }
      const int64_t first = run * inner + (item - run * pieces) * kPiece;
      int64_t last = (run + 1) * inner < p.n ? (run + 1) * inner : p.n;
      if (first + kPiece < last) last = first + kPiece;
      for (int64_t i = first + 4 * t.lane(); i < last; i += 128)
        visitor.add(i, last - i < 4 ? static_cast<int>(last - i) : 4);
    }
    if (channel >= 0) visitor.flush(t, channel);
  }
};

/// A thread strides over whole turns of all channels, so that it keeps to one channel and
/// neighbours read neighbours.
template <class Visitor>
struct VisitColumns {
  using Params = typename Visitor::Params;
  static constexpr int kThreads = kVisitThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t width = p.channels.channels * p.channels.inner, threads = t.count(),
                  stride = width > threads ? width : threads / width * width;
    Visitor visitor(p);
    for (int64_t j = t.index(); j < stride && j < p.n; j += threads) {
      const int64_t channel = j % width / p.channels.inner;
      visitor.begin(channel);
      for (int64_t i = j; i < p.n; i += stride) visitor.add(i, 1);
      visitor.flush_one(t, channel);
    }
  }
};

template <class Visitor>
cudaError_t visit(const typename Visitor::Params& p, cudaStream_t stream) noexcept {
  if (p.n == 0) return cudaSuccess;
  const int64_t inner = p.channels.inner;
  if (p.channels.channels > 1 && inner < kShortRun) {
    return launch<VisitColumns<Visitor>>(
        p, {blocks_for(p.n, int64_t{kVisitThreads} * 8, kMostVisitBlocks)}, stream);
  }
  const int64_t items = (p.n + inner - 1) / inner * ((inner + kPiece - 1) / kPiece);
  return launch<VisitRuns<Visitor>>(p, {blocks_for(items, kVisitThreads / 32, kMostVisitBlocks)},
                                    stream);
}

}  // namespace torchext::cuda
