// Values of which many are the same one: sparse gradients, activations after a ReLU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace torchext::levels {

/// Copies of one value.
struct Run {
  float value;
  uint64_t copies;
};

/// Float32 values as runs of copies and the others.
struct Thinned {
  const float* x;  // the others [n], in their order
  size_t n;
  std::vector<Run> runs;         // ascending; none: no value is common, and x is what was given
  std::unique_ptr<float[]> own;  // memory of the others, if they were copied
};

/// Takes out all of ascending values of which few are distinct; otherwise looks at 32 values and
/// takes out one that a third of them share. x must outlive the result.
Thinned take_out_common(const float* x, size_t n);

/// Copies the values unequal to `common` (NaN is) to `out`, in order, and returns their number; out
/// is writable to 16 values beyond. All variants copy the same.
using CopyOthersFn = size_t(const float* x, size_t n, float common, float* out) noexcept;

CopyOthersFn copy_others_ref, copy_others_avx2, copy_others_avx512;

}  // namespace torchext::levels
