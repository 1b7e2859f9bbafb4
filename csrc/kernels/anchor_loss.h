// The loss of a row at the anchor of a store; the CPU and CUDA share it.
#pragma once

#include "logistic.h"

namespace torchext::cpu {

enum class AnchorLoss : int { squared_error = 0, log_loss = 1 };

/// Of a score z and a target y; y is +-1 for log_loss.
TX_HD LossAndSlope anchor_loss(AnchorLoss loss, double z, double y) {
  if (loss == AnchorLoss::log_loss) return logistic_loss(z, y);
  return {0.5 * (z - y) * (z - y), z - y};
}

}  // namespace torchext::cpu
