// The spacing of a moving lattice from the gradient at its centre, and the automatic choice of mu.
#pragma once

#include <vector>

namespace torchext::optim {

/// The norm of the whole from the squares of the tensors, added one by one.
double total_norm(const std::vector<double>& squares);

/// What an epoch says about mu.
struct EpochFacts {
  double mu;         // in use
  double before;     // norm of the gradient at its start
  double after;      // and at its end
  double clip_rate;  // updates that saturated
  double offset;     // largest offset at its end
};

/// Larger after noise won, smaller after clipping, else towards a box twice (8 times from 12 bits)
/// the offset.
double next_mu(const EpochFacts& epoch, int bits);

}  // namespace torchext::optim
