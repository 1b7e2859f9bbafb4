// Names of the losses that full-batch and variance-reduced solvers share.
#pragma once

#include "kernels/linear/exact_pass.h"
#include "stable.h"

namespace torchext::ops {

inline cpu::RowLoss read_loss(const char* op, const std::string& loss) {
  if (loss == "squared") return cpu::RowLoss::squared;
  if (loss == "logistic") return cpu::RowLoss::logistic;
  TX_CHECK(loss == "softmax", op, "loss must be squared, logistic or softmax, got ", loss);
  return cpu::RowLoss::softmax;
}

}  // namespace torchext::ops
