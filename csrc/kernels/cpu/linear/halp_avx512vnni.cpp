// Integer steps, AVX-512 VNNI. See inner_loop.h; the loops leave no shuffle to 8-bit z.
//
// 8 bits: floor(e / 256) is the high byte of e. Even and odd columns are worked on apart in 16-bit
// lanes, so that both high bytes are where the sum needs them; h is kept as 32 even, then 32 odd
// columns of each 64. A product is exact as the high half of (256 x)(256 gamma).
// 16 bits: one vpdpwssd per lane forms r - h - gamma x - c z from the pair (x, z); unpacking and
// packing cancel, and h is kept in the order between them.
#include "../philox_avx512.h"
#include "halp_batch_impl.h"

namespace torchext::cpu {
namespace {

TX_INL int count(__mmask64 mask) { return __builtin_popcountll(mask); }

template <bool kDecay>
TX_INL int64_t step8(const HalpStep& s, int64_t* clips) {
  const auto *x = static_cast<const int8_t*>(s.x), *next = static_cast<const int8_t*>(s.next);
  auto* z = static_cast<int8_t*>(s.z);
  const auto* drift = static_cast<const int16_t*>(s.drift);
  const V gamma = words16(s.gamma * 256), decay = words16(s.decay), high = words16(-256);
  const V noise = load(s.noise), low_noise = _mm512_andnot_si512(high, noise),
          high_noise = _mm512_srli_epi16(noise, 8);
  const V least = _mm512_set1_epi8(-127), ones = _mm512_set1_epi8(1), bias = _mm512_set1_epi8(-128);
  V dot = _mm512_setzero_si512(), sum = dot;
  int64_t clipped = 0;
  for (int64_t j = 0; j < s.n; j += 64) {
    TX_FETCH_ROWS(s.ahead, j / 64);
    const V xj = load(x + j), zj = load(z + j);
    const V even_x = _mm512_mulhi_epi16(_mm512_slli_epi16(xj, 8), gamma);
    const V odd_x = _mm512_mulhi_epi16(_mm512_and_si512(xj, high), gamma);
    V even = _mm512_subs_epi16(_mm512_sub_epi16(low_noise, even_x), load(drift + j));
    V odd = _mm512_subs_epi16(_mm512_sub_epi16(high_noise, odd_x), load(drift + j + 32));
    if (kDecay) {
      const V even_z = _mm512_srai_epi16(_mm512_slli_epi16(zj, 8), 8);
      even = _mm512_subs_epi16(even, _mm512_mullo_epi16(even_z, decay));
      odd = _mm512_subs_epi16(odd, _mm512_mullo_epi16(_mm512_srai_epi16(zj, 8), decay));
    }
    const V by = _mm512_ternarylogic_epi32(_mm512_srli_epi16(even, 8), odd, high, 0xF8);
    const V moved = _mm512_max_epi8(_mm512_adds_epi8(zj, by), least);
    clipped += count(_mm512_cmpneq_epi8_mask(moved, _mm512_add_epi8(zj, by)));
    _mm512_storeu_si512(z + j, moved);
    dot = _mm512_dpbusd_epi32(dot, _mm512_xor_si512(load(next + j), bias), moved);
    sum = _mm512_dpbusd_epi32(sum, ones, moved);
  }
  *clips += clipped;
  // (x + 128) z was summed: each lane fits 32 bits, their sum may not.
  return total(add_wide(zeros(), dot)) - 128 * total(add_wide(zeros(), sum));
}

int64_t step_z8(const HalpStep& s, int64_t* clips) noexcept {
  return s.decay != 0 ? step8<true>(s, clips) : step8<false>(s, clips);
}

/// X: codes of the data; R: a lane of noise.
template <class X, class R>
int64_t step16(const HalpStep& s, int64_t* clips) noexcept {
  constexpr int kShift = 8 * sizeof(R);
  constexpr int64_t kFlush = 256 * 32;
  const auto *x = static_cast<const X*>(s.x), *next = static_cast<const X*>(s.next);
  auto* z = static_cast<int16_t*>(s.z);
  const auto* drift = static_cast<const int32_t*>(s.drift);
  const V factors = _mm512_set1_epi32(static_cast<int32_t>(
      (static_cast<uint32_t>(-s.gamma) & 0xffffu) | static_cast<uint32_t>(-s.decay) << 16));
  const V zero = _mm512_setzero_si512(), least = words16(-32767);
  const V offset = _mm512_set1_epi32(32767), range = _mm512_set1_epi32(65534);
  V noise[2][2];
  for (int h = 0; h < 2; ++h) {
    const V l = lanes(reinterpret_cast<const R*>(s.noise) + 32 * h);
    noise[h][0] = _mm512_unpacklo_epi16(l, zero);
    noise[h][1] = _mm512_unpackhi_epi16(l, zero);
  }
  V sum = zero;
  int64_t clipped = 0;
  for (int64_t begin = 0; begin < s.n; begin += kFlush) {
    const int64_t end = begin + kFlush < s.n ? begin + kFlush : s.n;
    V narrow = zero;
    for (int64_t j = begin; j < end; j += 64) {
      constexpr int64_t kLines = sizeof(X);
      for (int64_t line = 0; line < kLines; ++line) TX_FETCH_ROWS(s.ahead, j / 64 * kLines + line);
      repeat<2>([&](auto half) TX_LAMBDA {
        const int64_t i = j + 32 * half.value;
        const V xi = wide(x + i), zi = load(z + i);
        V moved[2];
        repeat<2>([&](auto part) TX_LAMBDA {
          constexpr int p = decltype(part)::value;
          const V pair = p == 0 ? _mm512_unpacklo_epi16(xi, zi) : _mm512_unpackhi_epi16(xi, zi);
          const V e = _mm512_dpwssd_epi32(
              _mm512_sub_epi32(noise[half.value][p], load(drift + i + 16 * p)), pair, factors);
          moved[p] = _mm512_add_epi32(_mm512_srai_epi32(e, kShift), _mm512_srai_epi32(pair, 16));
          clipped += count(_mm512_cmpgt_epu32_mask(_mm512_add_epi32(moved[p], offset), range));
        });
        const V now = _mm512_max_epi16(_mm512_packs_epi32(moved[0], moved[1]), least);
        _mm512_storeu_si512(z + i, now);
        add_dot(next, narrow, sum, wide(next + i), now);
      });
    }
    sum = add_wide(sum, narrow);
  }
  *clips += clipped;
  return total(sum);
}

void drift_narrow(const HalpDrift& d, int64_t* clips) noexcept {
  const auto* target = static_cast<const float*>(d.target);
  auto* out = static_cast<int16_t*>(d.drift);
  const __m512 most = _mm512_set1_ps(static_cast<float>(d.most)),
               least = _mm512_sub_ps(_mm512_setzero_ps(), most), one = _mm512_set1_ps(1.0f);
  alignas(64) int16_t order[64];  // even columns of a pair of vectors, then odd ones
  for (int i = 0; i < 64; ++i) order[i] = static_cast<int16_t>(2 * (i % 32) + i / 32);
  int64_t clipped = 0;
  for (int64_t j = 0; j < d.n; j += 64) {
    V words[4];
    philox_64(d.key, d.block + static_cast<uint64_t>(j / 4), d.stream, kDriftNoise, words);
    __m256i half[4];
    repeat<4>([&](auto part) TX_LAMBDA {
      const __m512 t = _mm512_loadu_ps(target + j + 16 * part.value);
      const __m512 low = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
      const __m512 u = d.nearest ? _mm512_set1_ps(0.5f) : unit_16(words[part.value]);
      const __mmask16 up = _mm512_cmp_ps_mask(u, _mm512_sub_ps(t, low), _CMP_LT_OQ);
      const __m512 code = _mm512_mask_add_ps(low, up, low, one);
      const __m512 kept = _mm512_max_ps(_mm512_min_ps(code, most), least);
      clipped += count(_mm512_cmp_ps_mask(kept, code, _CMP_NEQ_OQ));
      half[part.value] = _mm512_cvtepi32_epi16(_mm512_cvttps_epi32(kept));
    });
    const V front = _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
    const V back = _mm512_inserti64x4(_mm512_castsi256_si512(half[2]), half[3], 1);
    for (int odd = 0; odd < 2; ++odd) {
      _mm512_storeu_si512(out + j + 32 * odd,
                          _mm512_permutex2var_epi16(front, load(order + 32 * odd), back));
    }
  }
  *clips += clipped;
}

void drift_wide(const HalpDrift& d, int64_t* clips) noexcept {
  const auto* target = static_cast<const double*>(d.target);
  auto* out = static_cast<int32_t*>(d.drift);
  const __m512d most = _mm512_set1_pd(d.most), least = _mm512_set1_pd(-d.most),
                one = _mm512_set1_pd(1.0), unit = _mm512_set1_pd(0x1p-24);
  int64_t clipped = 0;
  for (int64_t j = 0; j < d.n; j += 64) {
    V words[4];
    philox_64(d.key, d.block + static_cast<uint64_t>(j / 4), d.stream, kDriftNoise, words);
    repeat<2>([&](auto half) TX_LAMBDA {
      V code[2];
      repeat<2>([&](auto part) TX_LAMBDA {
        const V bits = _mm512_srli_epi32(words[2 * half.value + part.value], 8);
        __m256i eight[2];
        repeat<2>([&](auto side) TX_LAMBDA {
          const int64_t at = j + 32 * half.value + 16 * part.value + 8 * side.value;
          const __m512d t = _mm512_loadu_pd(target + at);
          const __m512d low = _mm512_roundscale_pd(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
          const __m512d u =
              d.nearest
                  ? _mm512_set1_pd(0.5)
                  : _mm512_mul_pd(unit,
                                  _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(bits, side.value)));
          const __mmask8 up = _mm512_cmp_pd_mask(u, _mm512_sub_pd(t, low), _CMP_LT_OQ);
          const __m512d whole = _mm512_mask_add_pd(low, up, low, one);
          const __m512d kept = _mm512_max_pd(_mm512_min_pd(whole, most), least);
          clipped += count(_mm512_cmp_pd_mask(kept, whole, _CMP_NEQ_OQ));
          eight[side.value] = _mm512_cvttpd_epi32(kept);
        });
        code[part.value] = _mm512_inserti64x4(_mm512_castsi256_si512(eight[0]), eight[1], 1);
      });
      _mm512_storeu_si512(out + j + 32 * half.value, _mm512_shuffle_i32x4(code[0], code[1], 0x88));
      _mm512_storeu_si512(out + j + 32 * half.value + 16,
                          _mm512_shuffle_i32x4(code[0], code[1], 0xDD));
    });
  }
  *clips += clipped;
}

void draw_words(Key key, uint64_t block, uint32_t stream, uint32_t draw, int64_t n,
                uint32_t* words) noexcept {
  for (int64_t i = 0; i < n; i += 64) {
    V w[4];
    philox_64(key, block + static_cast<uint64_t>(i / 4), stream, draw, w);
    for (int part = 0; part < 4; ++part) _mm512_storeu_si512(words + i + 16 * part, w[part]);
  }
}

}  // namespace

const HalpKernels& halp_avx512vnni() noexcept {
  static const HalpKernels kernels = {
      {step_z8, step16<int8_t, uint8_t>, step16<int16_t, uint16_t>},
      {halp_dot<int8_t, int8_t>, halp_dot<int8_t, int16_t>, halp_dot<int16_t, int16_t>},
      {halp_batch<int8_t, int8_t, uint8_t>, halp_batch<int8_t, int16_t, uint8_t>,
       halp_batch<int16_t, int16_t, uint16_t>},
      drift_narrow,
      drift_wide,
      draw_words};
  return kernels;
}

}  // namespace torchext::cpu
