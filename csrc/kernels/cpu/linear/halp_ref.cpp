// Integer steps: the definition.
#include <cstring>

#include "../../linear/halp_rules.h"
#include "../../linear/inner_loop.h"

namespace torchext::cpu {
namespace {

/// R: the type of a lane of noise.
template <class X, class Z, class H, class R>
int64_t step(const HalpStep& s, int64_t* clips) noexcept {
  constexpr bool kNarrow = sizeof(Z) == 1;
  constexpr int kShift = 8 * sizeof(R);
  const X* x = static_cast<const X*>(s.x);
  const auto* noise = reinterpret_cast<const R*>(s.noise);
  const H* drift = static_cast<const H*>(s.drift);
  Z* z = static_cast<Z*>(s.z);
  for (int64_t j = 0; j < s.n; ++j) {
    z[j] = static_cast<Z>(
        halp_move<kNarrow, kShift>(noise[j % 64], s.gamma, x[j], drift[j], s.decay, z[j], clips));
  }
  int64_t dot = 0;
  for (int64_t j = 0; j < s.n; ++j) dot += static_cast<const X*>(s.next)[j] * z[j];
  return dot;
}

template <class X, class Z>
int64_t dot(const void* x, const void* z, const void* /*ahead*/, int64_t n) noexcept {
  int64_t sum = 0;
  for (int64_t j = 0; j < n; ++j)
    sum += static_cast<int64_t>(static_cast<const X*>(x)[j]) * static_cast<const Z*>(z)[j];
  return sum;
}

template <class X, class Z, class R>
void batch(const HalpBatchStep& s, int64_t* clips) noexcept {
  const auto* noise = reinterpret_cast<const R*>(s.noise);
  Z* z = static_cast<Z*>(s.z);
  for (int64_t j = 0; j < s.n; ++j) {
    int32_t e = noise[j % 64] - s.drift[j] - s.decay * z[j];
    for (int64_t i = 0; i < s.rows; ++i) e -= s.gammas[i] * static_cast<const X*>(s.x[i])[j];
    z[j] = static_cast<Z>(halp_land(e, 8 * sizeof(R), z[j], sizeof(Z) == 1 ? 127 : 32767, clips));
  }
}

/// T: float32 or float64, in which the target is rounded.
template <class T, class H>
void round_drift(const HalpDrift& d, int64_t* clips) noexcept {
  const T* target = static_cast<const T*>(d.target);
  H* out = static_cast<H*>(d.drift);
  const T most = static_cast<T>(d.most);
  for (int64_t j = 0; j < d.n; j += 4) {
    const Words words = draw4(d.key, d.block + static_cast<uint64_t>(j / 4), d.stream, kDriftNoise);
    for (int i = 0; i < 4; ++i) {
      const T u = d.nearest ? T{0.5} : static_cast<T>(unit(words.w[i]));
      out[j + i] = static_cast<H>(halp_drift(target[j + i], u, most, clips));
    }
  }
}

void draw_words(Key key, uint64_t block, uint32_t stream, uint32_t draw, int64_t count,
                uint32_t* words) noexcept {
  for (int64_t i = 0; i < count; i += 4) {
    const Words four = draw4(key, block + static_cast<uint64_t>(i / 4), stream, draw);
    std::memcpy(words + i, four.w, sizeof four.w);
  }
}

}  // namespace

const HalpKernels& halp_ref() noexcept {
  static const HalpKernels kernels = {
      {step<int8_t, int8_t, int16_t, uint8_t>, step<int8_t, int16_t, int32_t, uint8_t>,
       step<int16_t, int16_t, int32_t, uint16_t>},
      {dot<int8_t, int8_t>, dot<int8_t, int16_t>, dot<int16_t, int16_t>},
      {batch<int8_t, int8_t, uint8_t>, batch<int8_t, int16_t, uint8_t>,
       batch<int16_t, int16_t, uint16_t>},
      round_drift<float, int16_t>,
      round_drift<double, int32_t>,
      draw_words};
  return kernels;
}

}  // namespace torchext::cpu
