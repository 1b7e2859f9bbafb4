// Lattice kernels, avx2.
#include "../../optim/lattice_impl.h"

namespace torchext::cpu {

const LatticeKernels lattice_avx2 = kLattice;

}  // namespace torchext::cpu
