#include "kernels/philox.h"

#include <gtest/gtest.h>

#include "kernels/tree_sum.h"

namespace torchext {
namespace {

TEST(Philox, PublishedKnownAnswers) {
  const Words zero = philox4x32_10(0, 0, 0, 0, 0, 0);
  EXPECT_EQ(zero.w[0], 0x6627e8d5u);
  EXPECT_EQ(zero.w[3], 0x9b00dbd8u);
  const Words pi =
      philox4x32_10(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0);
  EXPECT_EQ(pi.w[0], 0xd16cfe09u);
  EXPECT_EQ(pi.w[1], 0x94fdccebu);
}

TEST(Philox, OffsetCarriesAndWraps) {
  const uint64_t seed = 0x0123456789ABCDEFull;
  EXPECT_EQ(draw4({seed, 0}, 0, 0, 0).w[0], 0xb850222eu);
  EXPECT_EQ(draw4({seed, 0xFFFFFFFFull}, 1, 0, 0).w[0], 0xd9412d6au);
  EXPECT_EQ(draw4({seed, ~0ull}, 1, 0, 0).w[0], 0xb850222eu);
}

TEST(Philox, FoldIn) {
  const Key parent{0x0123456789ABCDEFull, 0};
  EXPECT_EQ(fold_in(parent, 0u).seed, 0xc9739cd5eacbd08full);
  EXPECT_EQ(fold_in(fold_in(parent, 2u), 1000u).seed, 0x54ca17576594e5b4ull);
  EXPECT_EQ(fold_in(Key{parent.seed, 5}, 1u).seed, 0x46a9b4d7af0a610aull);
}

TEST(TreeSum, GoldenVectors) {
  const auto term = [](int64_t i) {
    const double x = static_cast<float>(i % 7 - 3) * 0.1f;
    return x * x;
  };
  EXPECT_EQ(tree_sum(33, term), 0x1.451eb9a147ae8p+0);
  EXPECT_EQ(tree_sum(1025, term), 0x1.4828f71670a42p+5);
  EXPECT_EQ(tree_sum(5000, term), 0x1.90199b3800005p+7);
  EXPECT_EQ(tree_sum(2000000, term), 0x1.38800e1076004p+16);
  EXPECT_EQ(tree_sum(0, term), 0.0);
}

}  // namespace
}  // namespace torchext
