#include "common_value.h"

#include <algorithm>
#include <array>

#include "../cpu/dispatch.h"
#include "float_keys.h"

namespace torchext::levels {
namespace {

constexpr size_t kSample = 32, kShare = 11;

CopyOthersFn* copy_others() noexcept {
#if defined(__x86_64__)
  switch (cpu::active_isa()) {
    case cpu::Isa::avx512: return copy_others_avx512;
    case cpu::Isa::avx2: return copy_others_avx2;
    default: break;
  }
#endif
  return copy_others_ref;
}

}  // namespace

Thinned take_out_common(const float* x, size_t n) {
  Thinned out{x, n, 0, 0, nullptr};
  if (n < kSample) return out;
  std::array<uint32_t, kSample> sample;  // keys: a NaN, which is refused later, has an order too
  for (size_t i = 0; i < kSample; ++i) sample[i] = key_of(x[n / kSample * i]);
  std::sort(sample.begin(), sample.end());
  size_t at = 0;
  while (at + kShare <= kSample && sample[at] != sample[at + kShare - 1]) ++at;
  if (at + kShare > kSample) return out;
  out.common = static_cast<float>(value_of(sample[at]));
  out.own.reset(new float[n + 16]);  // not initialised: most of it is never touched
  out.n = copy_others()(x, n, out.common, out.own.get());
  out.x = out.own.get();
  out.copies = n - out.n;
  return out;
}

}  // namespace torchext::levels
