// Integer steps, AVX2: halp_avx512vnni.cpp on half as many lanes and without VNNI.
#include "../philox_avx2.h"
#include "halp_batch_impl.h"

namespace torchext::cpu {
namespace {

TX_INL int count(int mask) { return __builtin_popcount(static_cast<unsigned>(mask)); }

/// gamma * x for the even or the odd columns, |gamma| in `size`: one product of unsigned and signed
/// bytes, the other is zero.
template <bool kNegative>
TX_INL V less_product(V from, V size, V x) {
  const V product = _mm256_maddubs_epi16(size, x);
  return kNegative ? _mm256_add_epi16(from, product) : _mm256_sub_epi16(from, product);
}

template <bool kDecay, bool kNegative>
TX_INL int64_t step8(const HalpStep& s, int64_t* clips) {
  constexpr int64_t kFlush = 64 * 64;  // two kept codes a lane and turn: 8 bits count 255
  const auto *x = static_cast<const int8_t*>(s.x), *next = static_cast<const int8_t*>(s.next);
  auto* z = static_cast<int8_t*>(s.z);
  const auto* drift = static_cast<const int16_t*>(s.drift);
  const auto* bytes = reinterpret_cast<const uint8_t*>(s.noise);
  const int size = kNegative ? -s.gamma : s.gamma;
  const V even_size = words16(size), odd_size = words16(size * 256);
  const V decay = words16(s.decay), high = words16(-256), zero = _mm256_setzero_si256();
  const V least = _mm256_set1_epi8(-127), ones = words16(1);
  V noise[2][2];
  for (int h = 0; h < 2; ++h) {
    noise[h][0] = _mm256_andnot_si256(high, load(bytes + 32 * h));
    noise[h][1] = _mm256_srli_epi16(load(bytes + 32 * h), 8);
  }
  V dot = zero, kept = zero, few = zero;
  for (int64_t j = 0; j < s.n; j += 64) {
    if (j % kFlush == 0) {
      kept = _mm256_add_epi64(kept, _mm256_sad_epu8(few, zero));
      few = zero;
    }
    TX_FETCH_ROWS(s.ahead, j / 64);
    repeat<2>([&](auto half) TX_LAMBDA {
      constexpr int h = decltype(half)::value;
      const int64_t i = j + 32 * h;
      const V xi = load(x + i), zi = load(z + i);
      V even = _mm256_subs_epi16(less_product<kNegative>(noise[h][0], even_size, xi),
                                 load(drift + j + 16 * h));
      V odd = _mm256_subs_epi16(less_product<kNegative>(noise[h][1], odd_size, xi),
                                load(drift + j + 32 + 16 * h));
      if (kDecay) {
        const V even_z = _mm256_srai_epi16(_mm256_slli_epi16(zi, 8), 8);
        even = _mm256_subs_epi16(even, _mm256_mullo_epi16(even_z, decay));
        odd = _mm256_subs_epi16(odd, _mm256_mullo_epi16(_mm256_srai_epi16(zi, 8), decay));
      }
      const V by = _mm256_or_si256(_mm256_srli_epi16(even, 8), _mm256_and_si256(odd, high));
      const V moved = _mm256_max_epi8(_mm256_adds_epi8(zi, by), least);
      few = _mm256_sub_epi8(few, _mm256_cmpeq_epi8(moved, _mm256_add_epi8(zi, by)));
      put(z + i, moved);
      const V y = load(next + i);  // |y| is unsigned, its sign goes to z; two products fit 16 bits
      const V two = _mm256_maddubs_epi16(_mm256_abs_epi8(y), _mm256_sign_epi8(moved, y));
      dot = _mm256_add_epi32(dot, _mm256_madd_epi16(two, ones));
    });
  }
  *clips += s.n - total(_mm256_add_epi64(kept, _mm256_sad_epu8(few, zero)));
  return total(add_wide(zero, dot));
}

int64_t step_z8(const HalpStep& s, int64_t* clips) noexcept {
  if (s.gamma < 0) return s.decay != 0 ? step8<true, true>(s, clips) : step8<false, true>(s, clips);
  return s.decay != 0 ? step8<true, false>(s, clips) : step8<false, false>(s, clips);
}

/// X: codes of the data; R: a lane of noise.
template <class X, class R>
int64_t step16(const HalpStep& s, int64_t* clips) noexcept {
  constexpr int kShift = 8 * sizeof(R);
  constexpr int64_t kFlush = 256 * 16;
  const auto *x = static_cast<const X*>(s.x), *next = static_cast<const X*>(s.next);
  auto* z = static_cast<int16_t*>(s.z);
  const auto* drift = static_cast<const int32_t*>(s.drift);
  const V factors = _mm256_set1_epi32(static_cast<int32_t>(
      (static_cast<uint32_t>(-s.gamma) & 0xffffu) | static_cast<uint32_t>(-s.decay) << 16));
  const V zero = _mm256_setzero_si256(), least = words16(-32767);
  const V limit = _mm256_set1_epi32(32767);
  V noise[4][2];
  for (int q = 0; q < 4; ++q) {
    const V l = lanes(reinterpret_cast<const R*>(s.noise) + 16 * q);
    noise[q][0] = _mm256_unpacklo_epi16(l, zero);
    noise[q][1] = _mm256_unpackhi_epi16(l, zero);
  }
  V sum = zero, clipped = zero;
  for (int64_t begin = 0; begin < s.n; begin += kFlush) {
    const int64_t end = begin + kFlush < s.n ? begin + kFlush : s.n;
    V narrow = zero;
    for (int64_t j = begin; j < end; j += 64) {
      constexpr int64_t kLines = sizeof(X);
      for (int64_t line = 0; line < kLines; ++line) TX_FETCH_ROWS(s.ahead, j / 64 * kLines + line);
      repeat<4>([&](auto quarter) TX_LAMBDA {
        const int64_t i = j + 16 * quarter.value;
        const V xi = wide(x + i), zi = load(z + i);
        V moved[2];
        repeat<2>([&](auto part) TX_LAMBDA {
          constexpr int p = decltype(part)::value;
          const V pair = p == 0 ? _mm256_unpacklo_epi16(xi, zi) : _mm256_unpackhi_epi16(xi, zi);
          const V e =
              _mm256_add_epi32(_mm256_sub_epi32(noise[quarter.value][p], load(drift + i + 8 * p)),
                               _mm256_madd_epi16(pair, factors));
          moved[p] = _mm256_add_epi32(_mm256_srai_epi32(e, kShift), _mm256_srai_epi32(pair, 16));
          clipped =
              _mm256_sub_epi32(clipped, _mm256_cmpgt_epi32(_mm256_abs_epi32(moved[p]), limit));
        });
        const V now = _mm256_max_epi16(_mm256_packs_epi32(moved[0], moved[1]), least);
        put(z + i, now);
        add_dot(next, narrow, sum, wide(next + i), now);
      });
    }
    sum = add_wide(sum, narrow);
  }
  *clips += total(add_wide(zero, clipped));
  return total(sum);
}

/// Eight codes of float32 targets.
TX_INL V codes8(const float* target, __m256 u, __m256 most, int64_t* clipped) {
  const __m256 t = _mm256_loadu_ps(target), low = _mm256_floor_ps(t);
  const __m256 up = _mm256_cmp_ps(u, _mm256_sub_ps(t, low), _CMP_LT_OQ);
  const __m256 code = _mm256_add_ps(low, _mm256_and_ps(up, _mm256_set1_ps(1.0f)));
  const __m256 kept =
      _mm256_max_ps(_mm256_min_ps(code, most), _mm256_sub_ps(_mm256_setzero_ps(), most));
  *clipped += count(_mm256_movemask_ps(_mm256_cmp_ps(kept, code, _CMP_NEQ_OQ)));
  return _mm256_cvttps_epi32(kept);
}

/// Four codes of float64 targets.
TX_INL __m128i codes4(const double* target, __m256d u, __m256d most, int64_t* clipped) {
  const __m256d t = _mm256_loadu_pd(target), low = _mm256_floor_pd(t);
  const __m256d up = _mm256_cmp_pd(u, _mm256_sub_pd(t, low), _CMP_LT_OQ);
  const __m256d code = _mm256_add_pd(low, _mm256_and_pd(up, _mm256_set1_pd(1.0)));
  const __m256d kept =
      _mm256_max_pd(_mm256_min_pd(code, most), _mm256_sub_pd(_mm256_setzero_pd(), most));
  *clipped += count(_mm256_movemask_pd(_mm256_cmp_pd(kept, code, _CMP_NEQ_OQ)));
  return _mm256_cvttpd_epi32(kept);
}

/// 32-bit lanes of two vectors to 16 bits, in order.
TX_INL V narrowed(V a, V b) { return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8); }

void drift_narrow(const HalpDrift& d, int64_t* clips) noexcept {
  const auto* target = static_cast<const float*>(d.target);
  auto* out = static_cast<int16_t*>(d.drift);
  const __m256 most = _mm256_set1_ps(static_cast<float>(d.most)), half = _mm256_set1_ps(0.5f);
  for (int64_t j = 0; j < d.n; j += 32) {
    V sixteen[2];
    for (int side = 0; side < 2; ++side) {
      const int64_t at = j + 16 * side;
      V w0, w1;
      philox_16(d.key, d.block + static_cast<uint64_t>(at / 4), d.stream, kDriftNoise, &w0, &w1);
      const V front = codes8(target + at, d.nearest ? half : unit_8(w0), most, clips);
      const V back = codes8(target + at + 8, d.nearest ? half : unit_8(w1), most, clips);
      sixteen[side] = narrowed(front, back);
    }
    int16_t* const to = out + j / 64 * 64 + j % 64 / 2;  // 32 even, then 32 odd columns of each 64
    put(to, narrowed(_mm256_srai_epi32(_mm256_slli_epi32(sixteen[0], 16), 16),
                     _mm256_srai_epi32(_mm256_slli_epi32(sixteen[1], 16), 16)));
    put(to + 32, narrowed(_mm256_srai_epi32(sixteen[0], 16), _mm256_srai_epi32(sixteen[1], 16)));
  }
}

void drift_wide(const HalpDrift& d, int64_t* clips) noexcept {
  const auto* target = static_cast<const double*>(d.target);
  auto* out = static_cast<int32_t*>(d.drift);
  const __m256d most = _mm256_set1_pd(d.most), half = _mm256_set1_pd(0.5),
                unit = _mm256_set1_pd(0x1p-24);
  for (int64_t j = 0; j < d.n; j += 16) {
    V words[2], code[2];
    philox_16(d.key, d.block + static_cast<uint64_t>(j / 4), d.stream, kDriftNoise, words,
              words + 1);
    for (int part = 0; part < 2; ++part) {
      const V bits = _mm256_srli_epi32(words[part], 8);
      const __m128i side[2] = {_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)};
      __m128i four[2];
      for (int i = 0; i < 2; ++i) {
        const __m256d u = d.nearest ? half : _mm256_mul_pd(unit, _mm256_cvtepi32_pd(side[i]));
        four[i] = codes4(target + j + 8 * part + 4 * i, u, most, clips);
      }
      code[part] = _mm256_inserti128_si256(_mm256_castsi128_si256(four[0]), four[1], 1);
    }
    put(out + j, _mm256_permute2x128_si256(code[0], code[1], 0x20));
    put(out + j + 8, _mm256_permute2x128_si256(code[0], code[1], 0x31));
  }
}

void draw_words(Key key, uint64_t block, uint32_t stream, uint32_t draw, int64_t n,
                uint32_t* words) noexcept {
  for (int64_t i = 0; i < n; i += 16) {
    V w0, w1;
    philox_16(key, block + static_cast<uint64_t>(i / 4), stream, draw, &w0, &w1);
    put(words + i, w0);
    put(words + i + 8, w1);
  }
}

}  // namespace

const HalpKernels& halp_avx2() noexcept {
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
