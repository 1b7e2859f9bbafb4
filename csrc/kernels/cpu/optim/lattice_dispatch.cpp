// Which lattice kernels run, and the norms that choose a spacing: once an epoch, at memory speed.
#include "../../optim/lattice_rule.h"
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

void square_sums(const LatticeTensor& a, double weight_decay, int64_t begin, int64_t end,
                 double* chunk_sums) noexcept {
  for (int64_t i = begin; i < end; i += kLatticeChunk) {
    const int64_t n = end - i < kLatticeChunk ? end - i : kLatticeChunk;
    chunk_sums[i / kLatticeChunk] = tree_sum_chunk(n, [&](int64_t j) {
      const double g = number_at(a.full_grad, a.full_number, i + j);
      const double x = decayed(a, weight_decay, g, i + j);
      return x * x;
    });
  }
}

}  // namespace torchext::cpu
