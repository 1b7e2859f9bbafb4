// Values of which many are the same one: sparse gradients, activations after a ReLU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace torchext::levels {

/// Float32 values as the copies of one of them and the others.
struct Thinned {
  const float* x;  // the others [n], in their order
  size_t n;
  float common = 0;
  uint64_t copies = 0;           // 0: no value is common, and x is what was given
  std::unique_ptr<float[]> own;  // their memory, if they were copied
};

/// Looks at 32 values; one that a third of them share is taken out. x must outlive the result.
Thinned take_out_common(const float* x, size_t n);

/// Copies the values unequal to `common` (NaN is) to `out`, in order, and returns their number; out
/// is writable to 16 values beyond. All variants copy the same.
using CopyOthersFn = size_t(const float* x, size_t n, float common, float* out) noexcept;

CopyOthersFn copy_others_ref, copy_others_avx2, copy_others_avx512;

}  // namespace torchext::levels
