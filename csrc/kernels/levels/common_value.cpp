#include "common_value.h"

#include <algorithm>
#include <array>

#include "../cpu/dispatch.h"
#include "float_keys.h"

namespace torchext::levels {
namespace {

constexpr size_t kSample = 32, kShare = 11, kMostRuns = 4096;

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

/// All runs of x [n]; none if it does not ascend or has runs shorter than 32 or too many of them.
std::vector<Run> runs_of_ascending(const float* x, size_t n) {
  const size_t most = std::min(n / 32, kMostRuns);
  std::vector<Run> runs;
  for (size_t i = 0, next = 0; i < n; i = next) {
    for (next = i + 1; next < n && x[next] == x[i];) ++next;
    const bool ascends = next == n || x[next] > x[i];  // NaN does not
    if (!ascends || runs.size() == most) return {};
    runs.push_back({x[i], next - i});
  }
  return runs;
}

}  // namespace

Thinned take_out_common(const float* x, size_t n) {
  Thinned out{x, n, {}, nullptr};
  if (n < kSample) return out;
  out.runs = runs_of_ascending(x, n);
  if (!out.runs.empty()) {
    out.n = 0;
    return out;
  }
  std::array<uint32_t, kSample> sample;  // keys: a NaN, which is refused later, has an order too
  for (size_t i = 0; i < kSample; ++i) sample[i] = key_of(x[n / kSample * i]);
  std::sort(sample.begin(), sample.end());
  size_t at = 0;
  while (at + kShare <= kSample && sample[at] != sample[at + kShare - 1]) ++at;
  if (at + kShare > kSample) return out;
  const auto common = static_cast<float>(value_of(sample[at]));
  out.own.reset(new float[n + 16]);  // not initialised: most of it is never touched
  out.n = copy_others()(x, n, common, out.own.get());
  out.x = out.own.get();
  out.runs = {{common, n - out.n}};
  return out;
}

}  // namespace torchext::levels
