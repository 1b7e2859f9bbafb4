#include "derive_keys.h"
#include "kernels/philox.h"

namespace torchext::cuda {
namespace {

struct DeriveKeys {
  using Params = DeriveKeysParams;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Key parent{p.key[0], p.key[1]};
    const uint32_t first = p.data ? static_cast<uint32_t>(*p.data) : p.first;
    for (int64_t j = t.index(); j < p.n; j += t.count()) {
      const Key child = fold_in(parent, first + static_cast<uint32_t>(j));
      p.out[2 * j] = static_cast<int64_t>(child.seed);
      p.out[2 * j + 1] = static_cast<int64_t>(child.offset);
    }
  }
};

struct RandomWords {
  using Params = RandomWordsParams;
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Key key{p.key[0], p.key[1]};
    for (int64_t b = t.index(); b < p.blocks; b += t.count()) {
      const Words r = draw4(key, static_cast<uint64_t>(b), p.stream, p.draw);
      TX_UNROLL
      for (int k = 0; k < 4; ++k) p.out[4 * b + k] = r.w[k];
    }
  }
};

}  // namespace

cudaError_t launch_derive_keys(const DeriveKeysParams& p, cudaStream_t stream) noexcept {
  if (p.n == 0) return cudaSuccess;
  return launch<DeriveKeys>(p, {blocks_for(p.n, DeriveKeys::kThreads)}, stream);
}

cudaError_t launch_random_words(const RandomWordsParams& p, cudaStream_t stream) noexcept {
  if (p.blocks == 0) return cudaSuccess;
  return launch<RandomWords>(p, {blocks_for(p.blocks, RandomWords::kThreads)}, stream);
}

}  // namespace torchext::cuda
