#include "kernels/optim/lattice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/half.h"

namespace torchext {
namespace {

TEST(Half, BfloatRoundsToNearestEven) {
  EXPECT_EQ(to_bfloat16(1.0f), 0x3F80);
  EXPECT_EQ(to_bfloat16(float_from_bits(0x3F808000u)), 0x3F80);  // a tie goes to the even neighbour
  EXPECT_EQ(to_bfloat16(float_from_bits(0x3F818000u)), 0x3F82);
  EXPECT_EQ(to_bfloat16(float_from_bits(0x3F808001u)), 0x3F81);
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::infinity()), 0x7F80);
  EXPECT_EQ(to_bfloat16(float_from_bits(0xFFC00001u)), 0xFFC0);
  EXPECT_EQ(from_bfloat16(0xC000), -2.0f);
}

TEST(Half, EveryFloat16ComesBack) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float value = from_float16(static_cast<uint16_t>(h));
    const bool nan = (h & 0x7FFFu) > 0x7C00u;
    EXPECT_EQ(std::isnan(value), nan);
    if (!nan) {
      EXPECT_EQ(to_float16(value), h);
    }
  }
  EXPECT_EQ(from_float16(0x3C00), 1.0f);
  EXPECT_EQ(from_float16(0x0001), 0x1p-24f);
  EXPECT_EQ(to_float16(65519.0f), 0x7BFF);  // below half way to the next one, which is infinity
  EXPECT_EQ(to_float16(65520.0f), 0x7C00);
  EXPECT_EQ(to_float16(0x1p-25f), 0x0000);  // a tie at the smallest subnormal: even
  EXPECT_EQ(to_float16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(to_float16(1.0f + 0x1p-11f), 0x3C00);
  EXPECT_EQ(to_float16(1.0f + 0x1.8p-10f), 0x3C02);
}

/// One step on n elements in arrays of exactly that size, so that the sanitizer sees an overrun.
struct Outcome {
  std::vector<uint8_t> codes;
  std::vector<float> param;
  std::vector<double> sums;
};

Outcome run(const cpu::LatticeKernels& kernels, int64_t n, CodeStore store, int bits) {
  const auto size = static_cast<size_t>(n);
  std::vector<float> grad(size), at_center(size), full(size), center(size);
  for (size_t i = 0; i < size; ++i) {
    const auto k = static_cast<float>(i % 23);
    grad[i] = k - 11.0f;
    at_center[i] = 0.25f * k;
    full[i] = 1.5f - k;
    center[i] = 0.125f * k;
  }
  Outcome out;
  out.codes.resize(static_cast<size_t>(code_bytes(n, store)));
  out.param.resize(size);
  out.sums.resize(static_cast<size_t>((n + kLatticeChunk - 1) / kLatticeChunk * kLatticeSums));
  LatticeTensor a{};
  a.n = n;
  a.number = a.full_number = Number::f32;
  a.store = store;
  a.param = out.param.data();
  a.q = out.codes.data();
  a.center = center.data();
  a.grad = grad.data();
  a.grad_center = at_center.data();
  a.full_grad = full.data();
  a.delta = 0.125;
  a.stream = 3;
  LatticeRule r{};
  r.lr = 0.01;
  r.coef = 1.0;
  r.bits = bits;
  r.lattice = true;
  r.key = Key{42, 0};
  kernels.step(r, a, 0, n, out.sums.data());
  return out;
}

TEST(Lattice, InstructionSetsAgreeAndStayInside) {
  const struct {
    cpu::Isa isa;
    const cpu::LatticeKernels* kernels;
  } tables[] = {
#if defined(__x86_64__)
      {cpu::Isa::avx2, &cpu::lattice_avx2},
      {cpu::Isa::avx512, &cpu::lattice_avx512},
#endif
      {cpu::Isa::ref, &cpu::lattice_ref},
  };
  const struct {
    CodeStore store;
    int bits;
  } stores[] = {{CodeStore::int4, 4},
                {CodeStore::int4, 2},
                {CodeStore::int8, 8},
                {CodeStore::int16, 12},
                {CodeStore::f32, 8}};
  for (const auto& s : stores) {
    for (const int64_t n : {1, 3, 63, 64, 65, 1024, 1500}) {
      const Outcome expected = run(cpu::lattice_ref, n, s.store, s.bits);
      for (const auto& t : tables) {
        if (t.isa > cpu::best_isa()) continue;
        const Outcome got = run(*t.kernels, n, s.store, s.bits);
        EXPECT_EQ(got.codes, expected.codes);
        EXPECT_EQ(got.param, expected.param);
        EXPECT_EQ(got.sums, expected.sums);
      }
    }
  }
}

TEST(Lattice, OddLengthsOfPackedCodesEndInZeros) {
  const Outcome out = run(cpu::lattice_ref, 7, CodeStore::int4, 4);
  ASSERT_EQ(out.codes.size(), 4u);
  EXPECT_EQ(out.codes.back() >> 4, 0);
}

}  // namespace
}  // namespace torchext
