// The passes over keys: the same counts and sums on every instruction set, at any number of values.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/levels/float_keys.h"
#include "kernels/levels/key_passes.h"

namespace torchext::levels {
namespace {

struct Variant {
  const KeyPasses& passes;
  cpu::Isa isa;
};
const Variant kVariants[] = {{key_passes_ref, cpu::Isa::ref},
                             {key_passes_avx2, cpu::Isa::avx2},
                             {key_passes_avx512, cpu::Isa::avx512}};

/// Any bit patterns, among them NaN, infinities, both zeros and subnormal numbers.
std::vector<float> any_floats(size_t n, std::mt19937& g) {
  std::vector<float> x(n);
  for (float& v : x) {
    const uint32_t bits = g() % 8 == 0 ? 0x80000000u : static_cast<uint32_t>(g());
    std::memcpy(&v, &bits, sizeof v);
  }
  return x;
}

TEST(KeyPasses, CountWhatAPlainLoopCounts) {
  std::mt19937 g(1);
  for (size_t n = 0; n < 200; n += n < 140 ? 1 : 37) {
    const std::vector<float> x = any_floats(n, g);
    std::vector<uint32_t> want(kCoarseBins, 0);
    uint32_t low = 5u << 20, high = low;
    for (const float v : x) {
      const uint32_t key = key_of(v);
      ++want[key >> 16];
      low = key < low ? key : low;
      high = key > high ? key : high;
    }
    for (const Variant& variant : kVariants) {
      if (variant.isa > cpu::best_isa()) continue;
      std::vector<uint32_t> counts(kCoarseBins, 0);
      uint32_t lowest = 5u << 20, highest = lowest;
      variant.passes.count(x.data(), n, counts.data(), &lowest, &highest);
      EXPECT_EQ(counts, want) << n;
      EXPECT_EQ(lowest, low) << n;
      EXPECT_EQ(highest, high) << n;
    }
  }
}

TEST(KeyPasses, SumWhatAPlainLoopSums) {
  std::mt19937 g(2);
  std::vector<uint32_t> map(kCoarseBins), first(kCoarseBins);
  uint32_t bins = 0;
  for (uint32_t h = 0; h < kCoarseBins; ++h) {
    const uint32_t shift = h % 5 == 0 ? 13 + h % 4 : 16;  // up to eight bins, mostly one
    first[h] = bins;
    map[h] = bins << 5 | shift;
    bins += 65536u >> shift;
  }
  for (const size_t n : {0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 1000, 5000}) {
    const std::vector<float> x = any_floats(n, g);
    std::vector<uint64_t> want(2 * size_t{bins}, 0);
    for (const float v : x) {
      const uint32_t key = key_of(v), shift = map[key >> 16] & 31, low = key & 0xFFFF;
      const size_t bin = first[key >> 16] + (low >> shift);
      const uint64_t offset = low % (1u << shift);
      want[2 * bin] += (uint64_t{1} << 40) + offset;
      want[2 * bin + 1] += offset * offset;
    }
    for (const Variant& variant : kVariants) {
      if (variant.isa > cpu::best_isa()) continue;
      std::vector<uint64_t> sums(2 * size_t{bins}, 0);
      variant.passes.sum(x.data(), n, map.data(), sums.data());
      EXPECT_EQ(sums, want) << n;
    }
  }
}

}  // namespace
}  // namespace torchext::levels
