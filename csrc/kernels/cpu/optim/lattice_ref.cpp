// Lattice kernels, ref.
#include "../../optim/lattice_impl.h"

namespace torchext::cpu {

const LatticeKernels lattice_ref = kLattice;

}  // namespace torchext::cpu
