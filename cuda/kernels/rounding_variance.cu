#include "float_io.h"
#include "format_rules.h"
#include "rounding_variance.h"
#include "tiles.h"
#include "warp_reduce.h"

namespace torchext::cuda {
namespace {

static_assert(kTile == kTreeChunk);

/// Sum of term(0) .. term(size - 1): 32 strided lanes and a butterfly.
template <class Term>
TX_DEVICE double warp_tree_sum(const Thread& t, int size, const Term& term) {
  double sum = 0;
  for (int j = t.lane(); j < size; j += 32) sum += term(j);
  return warp_sum(sum, t);
}

template <class Rule>
struct VarianceOfChunks {
  using Params = RoundingVarianceParams;
  static constexpr int kThreads = kTileThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Rule rule(p.format, t);
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      const TileChannels channels(p.format.channels, tile);
      const Spacing first = rule.spacing(channels.first());
      const void* from = element(p.x, p.x_type, tile);
      const double sum = warp_tree_sum(t, size, [&](int j) {
        const auto x = static_cast<float>(load_double(from, p.x_type, j));
        return rule.variance(x, channels.single() ? first : rule.spacing(channels.at(j)));
      });
      if (t.lane() == 0) p.work[tile / kTile] = sum;
    });
  }
};

struct ChunkSums {
  struct Params {
    const double* x;
    double* sums;
    int64_t n;
  };
  static constexpr int kThreads = kTileThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      const double sum = warp_tree_sum(t, size, [&](int j) { return p.x[tile + j]; });
      if (t.lane() == 0) p.sums[tile / kTile] = sum;
    });
  }
};

}  // namespace

cudaError_t launch_rounding_variance(const RoundingVarianceParams& p,
                                     cudaStream_t stream) noexcept {
  if (p.n == 0) return zero(p.sum, sizeof *p.sum, stream);
  RoundingVarianceParams first = p;
  if (p.n <= kTile) first.work = p.sum;
  const cudaError_t status = with_rule(p.format, [&](auto* rule) {
    using Rule = std::remove_pointer_t<decltype(rule)>;
    return launch_tiles<VarianceOfChunks<Rule>>(first, p.n, 4 * Rule::kSharedWords, stream);
  });
  if (status != cudaSuccess) return status;
  double* from = p.work;
  for (int64_t left = (p.n + kTile - 1) / kTile; left > 1;) {
    const int64_t chunks = (left + kTile - 1) / kTile;
    double* to = chunks == 1 ? p.sum : from + left;
    const cudaError_t failed = launch_tiles<ChunkSums>({from, to, left}, left, 0, stream);
    if (failed != cudaSuccess) return failed;
    from = to;
    left = chunks;
  }
  return cudaSuccess;
}

}  // namespace torchext::cuda
