// The emulation of CUDA blocks itself: barriers, warp exchanges, shared memory, integer sums.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/launch.h"

namespace torchext::cuda {
namespace {

/// out[block] = sum (mod 2^64) of the block's n values: lanes by shuffles, warps by shared memory.
struct BlockSum {
  struct Params {
    const uint64_t* x;
    uint64_t* out;
    uint32_t* odd;  // bit k of word w: value 32 w + k is odd
    uint64_t* total;
    int64_t n;
    bool barrier;
  };
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    auto* parts = t.shared<uint64_t>();
    const int64_t i = t.index();
    uint64_t sum = i < p.n ? p.x[i] : 0;
    const uint32_t odd = t.ballot(sum % 2 != 0);
    if (t.lane() == 0) p.odd[i / 32] = odd;
    for (int d = 16; d > 0; d /= 2) sum += t.shuffle_down(sum, d);
    if (t.lane() == 0) parts[t.warp()] = sum;
    if (p.barrier) t.sync();
    if (t.thread() == 0) {
      for (int w = 1; w < kThreads / 32; ++w) sum += parts[w];
      p.out[t.block()] = sum;
      t.add(p.total, sum);
    }
  }
};

struct Sums {
  std::vector<uint64_t> out;
  std::vector<uint32_t> odd;
  uint64_t total = 0;
};

Sums sums_of(const std::vector<uint64_t>& x, bool barrier) {
  const auto n = static_cast<int64_t>(x.size());
  const int64_t blocks = blocks_for(n, BlockSum::kThreads);
  Sums sums{std::vector<uint64_t>(static_cast<size_t>(blocks)),
            std::vector<uint32_t>(static_cast<size_t>(blocks * BlockSum::kThreads / 32))};
  const BlockSum::Params p{x.data(), sums.out.data(), sums.odd.data(), &sums.total, n, barrier};
  EXPECT_EQ(launch<BlockSum>(p, {blocks, 1, 4 * sizeof(uint64_t)}, nullptr), cudaSuccess);
  return sums;
}

TEST(CudaEmulation, ReducesOverWarpsAndBlocks) {
  std::vector<uint64_t> x(1000);
  std::iota(x.begin(), x.end(), uint64_t{1});
  const Sums sums = sums_of(x, true);
  EXPECT_EQ(sums.total, 500500u);
  EXPECT_EQ(sums.out[0], 128u * 129 / 2);
  EXPECT_EQ(sums.odd[0], 0x55555555u);
}

TEST(CudaEmulation, AMissingBarrierGivesAWrongSumInOneOfTwoLaunches) {
  const std::vector<uint64_t> ones(128, 1);
  const uint64_t first = sums_of(ones, false).total, second = sums_of(ones, false).total;
  EXPECT_TRUE(first != 128 || second != 128);
}

struct HalfBarrier {
  struct Params {};
  static constexpr int kThreads = 64;
  TX_DEVICE static void run(const Params&, const Thread& t) {
    if (t.thread() < 32) {
      t.sync();
    } else {
      t.ballot(true);
      for (;;) t.thread() == 40 ? t.sync() : t.sync_warp();
    }
  }
};

TEST(CudaEmulationDeathTest, BarriersThatSomeThreadsMissAbort) {
  EXPECT_DEATH(launch<HalfBarrier>({}, {1}, nullptr), "never reach a barrier");
}

TEST(CudaEmulation, RefusesGeometriesThatNoGpuTakes) {
  const BlockSum::Params p{};
  EXPECT_EQ(launch<BlockSum>(p, {1, 70000}, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch<BlockSum>(p, {1, 1, 1 << 20}, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch<BlockSum>(p, {0}, nullptr), cudaSuccess);
}

TEST(CudaEmulation, ProductsOfFourBytes) {
  EXPECT_EQ(dp4a(0xFF02037Fu, 0x01FF80FFu, 10), 10 - 1 - 2 - 3 * 128 - 127);
  EXPECT_EQ(dp4a_unsigned(0xFF02037Fu, 0x01FF80FFu, 10), 10 + 255 - 2 - 3 * 128 - 127);
}

}  // namespace
}  // namespace torchext::cuda
