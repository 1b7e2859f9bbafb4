// Which lattice kernels run, and the norms that choose a spacing: once an epoch, at memory speed.
#include "../../half.h"
#include "../../optim/lattice.h"
#include "../../tree_sum.h"
#include "../dispatch.h"

namespace torchext::cpu {

const LatticeKernels& lattice_kernels() noexcept {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return lattice_avx512;
    case Isa::avx2: return lattice_avx2;
    default: break;
  }
#endif
  return lattice_ref;
}

namespace {

double element(const void* x, Number number, int64_t i) noexcept {
  switch (number) {
    case Number::f32: return static_cast<const float*>(x)[i];
    case Number::f64: return static_cast<const double*>(x)[i];
    case Number::bf16: return from_bfloat16(static_cast<const uint16_t*>(x)[i]);
    default: return from_float16(static_cast<const uint16_t*>(x)[i]);
  }
}

double decayed(const LatticeTensor& a, double weight_decay, int64_t i) noexcept {
  const double g = element(a.full_grad, a.full_number, i);
  if (a.center == nullptr) return g;
  if (a.number == Number::f64)
    return __builtin_fma(weight_decay, static_cast<const double*>(a.center)[i], g);
  return __builtin_fmaf(static_cast<float>(weight_decay), static_cast<const float*>(a.center)[i],
                        static_cast<float>(g));
}

}  // namespace

void square_sums(const LatticeTensor& a, double weight_decay, int64_t begin, int64_t end,
                 double* chunk_sums) noexcept {
  for (int64_t i = begin; i < end; i += kLatticeChunk) {
    const int64_t n = end - i < kLatticeChunk ? end - i : kLatticeChunk;
    chunk_sums[i / kLatticeChunk] = tree_sum_chunk(n, [&](int64_t j) {
      const double x = decayed(a, weight_decay, i + j);
      return x * x;
    });
  }
}

}  // namespace torchext::cpu
