// Lattice kernels, avx512.
#include "../../optim/lattice_impl.h"

namespace torchext::cpu {

const LatticeKernels lattice_avx512 = kLattice;

}  // namespace torchext::cpu
