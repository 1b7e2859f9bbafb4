#include "kernels/scale_rows.h"

namespace torchext::cpu {
namespace {

template <class T>
void run(const ScaleRows& p, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = p.index != nullptr ? p.index[i] : i;
    const T* x = static_cast<const T*>(p.x) + row * p.row_stride;
    float* out = p.out + i * p.cols;
    for (int64_t j = 0; j < p.cols; ++j)
      out[j] = static_cast<float>((static_cast<double>(x[j]) - p.mean[j]) / p.scale[j]);
  }
}

}  // namespace

void scale_rows_ref(const ScaleRows& p, int64_t begin, int64_t end) noexcept {
  (p.f64 ? run<double> : run<float>)(p, begin, end);
}

}  // namespace torchext::cpu
