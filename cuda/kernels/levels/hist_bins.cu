// Bins of float32 values, the same integers as csrc/kernels/levels/float_bins.cpp.
#include "bin_sums.cuh"
#include "kernels/levels/float_bin.h"

namespace torchext::cuda {
namespace {

using levels::kCoarseBins;

/// Counts of the coarse bins and the range. Even blocks take the keys of negative values, odd ones
/// the others: counters of 16 bits for half the bins fit the shared memory of every GPU. A counter
/// that reaches 2^15 hands them on; a barrier every 8 turns, in which a block counts 2^14 values,
/// bounds what may be added before it has.
struct CountKeys {
  using Params = HistLevels;
  static constexpr int kThreads = 512;
  static constexpr size_t kShared = kCoarseBins / 2 * sizeof(uint16_t);
  static constexpr uint32_t kFull = 0x8000;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    auto* table = t.shared<uint32_t>();  // two counters a word
    constexpr auto kWords = static_cast<int>(kCoarseBins / 4);
    for (int w = t.thread(); w < kWords; w += kThreads) table[w] = 0;
    t.sync();
    const auto half = static_cast<uint32_t>(t.block() % 2);
    uint32_t* count = p.work.count + half * (kCoarseBins / 2);
    const bool aligned = is_aligned(p.x);
    int64_t below = 0, above = 0;
    bool bad = false;
    const int64_t step = t.blocks() / 2 * kThreads * kEach;
    int turn = 0;
    for (int64_t base = t.block() / 2 * kThreads * kEach; base < p.n; base += step) {
      const int64_t i = base + t.thread() * kEach;
      float v[kEach];
      load_four(p.x, p.n, i, aligned, v);
      TX_UNROLL
      for (int j = 0; j < kEach; ++j) {
        const bool live = i + j < p.n;
        const uint32_t key = levels::key_of(v[j]);
        if (live) {
          bad = bad || !(v[j] - v[j] == 0.0f);
          const int64_t under = (int64_t{1} << 32) - key, over = int64_t{key} + 1;
          below = below < under ? under : below;
          above = above < over ? over : above;
        }
        const bool mine = live && key >> 31 == half;
        add(t, table, count, mine, (key >> 16) & (kCoarseBins / 2 - 1));
      }
      if (++turn % 8 == 0) t.sync();
    }
    below = warp_largest(below, t);
    above = warp_largest(above, t);
    const bool any_bad = t.ballot(bad) != 0;
    if (t.lane() == 0) {
      t.most(&p.work.state->below, below);
      t.most(&p.work.state->above, above);
      if (any_bad) t.most(&p.work.state->not_finite, 1);
    }
    t.sync();
    for (int w = t.thread(); w < kWords; w += kThreads) {
      const uint32_t two = table[w];
      if ((two & 0xFFFF) != 0) t.add(count + 2 * w, two & 0xFFFF);
      if (two >> 16 != 0) t.add(count + 2 * w + 1, two >> 16);
    }
  }

 private:
  /// A warp whose values share a bin adds them at once: sorted data and constants wait for nobody.
  TX_DEVICE static void add(const Thread& t, uint32_t* table, uint32_t* count, bool mine,
                            uint32_t bin) {
    const uint32_t tag = bin | static_cast<uint32_t>(mine) << 31;
    const bool same = t.ballot(tag == t.shuffle(tag, 0)) == 0xFFFFFFFFu;
    if (!mine || (same && t.lane() != 0)) return;
    const uint32_t amount = same ? 32 : 1, shift = bin % 2 * 16;
    const uint32_t old = t.add(table + bin / 2, amount << shift) >> shift & 0xFFFF;
    if (old < kFull && old + amount >= kFull) {
      t.add(table + bin / 2, 0u - (kFull << shift));
      t.add(count + bin, kFull);
    }
  }
};

/// How finely each coarse bin is cut, at the finest common level with at most kHistBins in all.
struct ChooseBins {
  using Params = HistLevels;
  static constexpr int kThreads = 1024;
  static constexpr int kRun = kCoarseBins / kThreads;  // consecutive coarse bins of a thread
  static constexpr int kBias = 512;                    // weights are stored above it

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    if (p.work.state->not_finite != 0) return;  // nothing will be read
    auto* scratch = t.shared<double>();
    uint32_t* map = p.work.map;
    const uint32_t begin = static_cast<uint32_t>(t.thread()) * kRun, end = begin + kRun;
    int heaviest = -kBias;
    for (uint32_t h = begin; h < end; ++h) {
      map[h] = levels::kNoBin;
      if (p.work.count[h] == 0) continue;
      const levels::CutRule rule = levels::cut_rule(h, p.work.count[h]);
      map[h] = static_cast<uint32_t>(rule.weight + kBias) << 5 | static_cast<uint32_t>(rule.limit);
      heaviest = heaviest < rule.weight ? rule.weight : heaviest;
    }
    int level = -block_reduce(t, scratch, heaviest, [](int a, int b) { return a < b ? b : a; });
    for (;; ++level) {
      int64_t total = 0;
      int32_t grows = 0;
      for (uint32_t h = begin; h < end; ++h) {
        if (map[h] == levels::kNoBin) continue;
        const levels::CutRule rule = rule_of(map[h]);
        const int bits = rule.bits(level + 1);
        total += int64_t{1} << bits;
        grows |= bits < rule.limit;
      }
      total = block_reduce(t, scratch, total, [](int64_t a, int64_t b) { return a + b; });
      if (total > kHistBins) break;
      if (block_sum(t, scratch, grows) == 0) {
        ++level;
        break;
      }
    }
    int32_t own = 0, bins;
    for (uint32_t h = begin; h < end; ++h)
      if (map[h] != levels::kNoBin) own += 1 << rule_of(map[h]).bits(level);
    auto bin = static_cast<uint32_t>(block_scan(t, scratch, own, &bins));
    for (uint32_t h = begin; h < end; ++h) {
      if (map[h] == levels::kNoBin) continue;
      const int bits = rule_of(map[h]).bits(level);
      const auto shift = static_cast<uint32_t>(16 - bits);
      map[h] = bin << 5 | shift;
      for (uint32_t k = 0; k < 1u << bits; ++k, ++bin) {
        p.work.key[bin] = h << 16 | k << shift;
        p.work.shift[bin] = static_cast<uint8_t>(shift);
      }
    }
    if (t.thread() == 0) p.work.state->bins = bins;
  }

 private:
  TX_DEVICE static levels::CutRule rule_of(uint32_t entry) {
    return {static_cast<int>(entry >> 5) - kBias, static_cast<int>(entry & 31)};
  }
};

/// Sums over the bins chosen.
struct SumBins {
  using Params = HistLevels;
  static constexpr int kThreads = BinSums::kThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const HistWork& w = p.work;
    if (w.state->not_finite != 0) return;
    const BinSums sums{w.held, w.first, w.second};
    sums.add(t, p.x, p.n, w.state->bins, [&w](uint32_t key) {
      const uint32_t entry = w.map[key >> 16], shift = entry & 31, below = key & 0xFFFF;
      return Place{(entry >> 5) + (below >> shift), below & ((1u << shift) - 1)};
    });
  }
};

}  // namespace

cudaError_t launch_float_bins(const HistLevels& p, cudaStream_t stream) noexcept {
  cudaError_t status = zero(p.work.state, static_cast<size_t>(p.work.zeroed), stream);
  if (status != cudaSuccess) return status;
  const int64_t pairs = blocks_for(p.n, int64_t{CountKeys::kThreads} * kEach * 8, 512);
  status = launch<CountKeys>(p, {2 * pairs, 1, CountKeys::kShared}, stream);
  if (status != cudaSuccess) return status;
  status = launch<ChooseBins>(p, {1, 1, kBlockScratch * sizeof(double)}, stream);
  if (status != cudaSuccess) return status;
  return launch<SumBins>(p, {blocks_for(p.n, BinSums::kChunk, 1024), 1, BinSums::kShared}, stream);
}

}  // namespace torchext::cuda
