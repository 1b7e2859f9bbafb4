// HALP's steps over mini-batches, written once for every vector width; for per-ISA sources.
//
// Two rows at a time: the 16-bit codes of a column lie in one 32-bit lane, so that one product with
// the pair of coefficients takes both from it. Unpacking and packing cancel.
#pragma once

#include "../../linear/inner_loop.h"

#if defined(__AVX512F__)
#include "halp_lanes_avx512.h"
#else
#include "halp_lanes_avx2.h"
#endif

namespace torchext::cpu {
namespace {

template <class X, class Z>
int64_t halp_dot(const void* px, const void* pz, const void* ahead, int64_t n) noexcept {
  constexpr int64_t kFlush = 256 * kLanes;
  const X* x = static_cast<const X*>(px);
  const Z* z = static_cast<const Z*>(pz);
  const auto* next = static_cast<const uint8_t*>(ahead);
  V sum = zeros();
  for (int64_t begin = 0; begin < n; begin += kFlush) {
    const int64_t end = begin + kFlush < n ? begin + kFlush : n;
    V narrow = zeros();
    for (int64_t j = begin; j < end; j += 64) {
      for (size_t line = 0; line < sizeof(X); ++line)
        __builtin_prefetch(next + static_cast<size_t>(j) * sizeof(X) + 64 * line, 0, 2);
      repeat<64 / kLanes>([&](auto part) TX_LAMBDA {
        const int64_t i = j + kLanes * part.value;
        add_dot(x, narrow, sum, wide(x + i), wide(z + i));
      });
    }
    sum = add_wide(sum, narrow);
  }
  return total(sum);
}

TX_INL V both16(int low, int high) {
  return words32(static_cast<int32_t>((static_cast<uint32_t>(low) & 0xffffu) |
                                      static_cast<uint32_t>(high) << 16));
}

/// R: a lane of noise.
template <class X, class Z, class R>
void halp_batch(const HalpBatchStep& s, int64_t* clips) noexcept {
  constexpr int kShift = 8 * sizeof(R), kParts = 64 / kLanes;
  constexpr int16_t kMost = sizeof(Z) == 1 ? 127 : 32767;
  const auto* noise = reinterpret_cast<const R*>(s.noise);
  Z* z = static_cast<Z*>(s.z);
  const V decay = both16(0, -s.decay), most = words32(kMost);
  V beyond = zeros();
  for (int64_t j = 0; j < s.n; j += 64) {
    V e[kParts][2];
    repeat<kParts>([&](auto part) TX_LAMBDA {
      constexpr int q = decltype(part)::value;
      const V lane = lanes(noise + kLanes * q);
      const int32_t* const drift = s.drift + j + kLanes * q;
      e[q][0] = less32(pairs<0>(lane, zeros()), load(drift));
      e[q][1] = less32(pairs<1>(lane, zeros()), load(drift + kLanes / 2));
    });
    for (int64_t i = 0; i < s.rows; i += 2) {
      const V factors = both16(-s.gammas[i], -s.gammas[i + 1]);
      const X* const first = static_cast<const X*>(s.x[i]) + j;
      const X* const second = static_cast<const X*>(s.x[i + 1]) + j;
      repeat<kParts>([&](auto part) TX_LAMBDA {
        constexpr int q = decltype(part)::value;
        const V a = wide(first + kLanes * q), b = wide(second + kLanes * q);
        e[q][0] = add_products(e[q][0], pairs<0>(a, b), factors);
        e[q][1] = add_products(e[q][1], pairs<1>(a, b), factors);
      });
    }
    repeat<kParts>([&](auto part) TX_LAMBDA {
      constexpr int q = decltype(part)::value;
      const V before = wide(z + j + kLanes * q);
      V moved[2];
      repeat<2>([&](auto half) TX_LAMBDA {
        constexpr int h = decltype(half)::value;
        const V pair = pairs<h>(zeros(), before);  // z in the high halves
        moved[h] = add32(shifted<kShift>(add_products(e[q][h], pair, decay)), shifted<16>(pair));
        count_beyond(beyond, moved[h], most);
      });
      put_codes(z + j + kLanes * q, clamped(packed(moved[0], moved[1]), kMost));
    });
  }
  *clips += total(add_wide(zeros(), beyond));
}

}  // namespace
}  // namespace torchext::cpu
