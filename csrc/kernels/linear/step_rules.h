// The elementwise rules of an SGD step, a vector of rows or columns at a time; CPU and CUDA share
// them.
#pragma once

#include "vec_math.h"

namespace torchext::cpu {
namespace {

/// floor(t) + [u < t - floor(t)], clamped to +-top; NaN gives -top.
TX_INL VI round_rule(VF t, VF uniform, VI top) {
  VI k = to_int(t);
  k += to_float(k) > t ? VI{} - 1 : VI{};  // truncation becomes floor
  k -= uniform < t - to_float(k) ? VI{} - 1 : VI{};
  k = k > top ? top : k;
  return k < -top ? -top : k;
}

/// Prediction from the integer dots of the planes (high is 0 with one).
TX_INL VF prediction_rule(VI low, VI high, bool two_planes, float sigma, float beta,
                          float intercept) {
  VF d = to_float(low);
  if (two_planes) d = to_float(high) * 256.0f + d;
  return (d * sigma + beta) + intercept;
}

/// Residual e = l'(z, y) and loss l(z, y).
struct Residual {
  VF e, loss;
};
/// `moved`: z is the change of a prediction from z0, and e the change of l'.
TX_INL Residual residual_rule(bool logistic, bool moved, VF z, VF y, VF z0) {
  if (!logistic) {
    const VF e = z - y;
    return {e, e * e * 0.5f};
  }
  if (moved) z += z0;
  const VF m = y * z, near = exp_approx(-absolute(m));
  VF e = -y / (exp_approx(m) + 1.0f);
  if (moved) e += y / (exp_approx(y * z0) + 1.0f);
  return {e, log1p_unit(near) - (m < 0.0f ? m : VF{})};
}

/// Gradient from integer column sums and the sum of the residuals' integers.
TX_INL VF gradient_rule(VI low, VI high, bool two_planes, VF lo, VF step, float sum, float scale) {
  VF c = to_float(low);
  if (two_planes) c = to_float(high) * 256.0f + c;
  return (lo * sum + step * c) * scale;
}

/// What an update does besides the plain step; the usual combinations are compiled apart.
struct UpdateParts {
  bool move, x0, constant, shrink, l1, l2, average;
};

/// x after a step along g; shrinkage = gamma l1.
TX_INL VF update_rule(UpdateParts parts, VF x, VF g, VF constant, VF shrink, VF centre, float gamma,
                      float l2, float shrinkage) {
  if (parts.constant) g += constant;
  if (parts.l2) g += x * l2;
  if (parts.shrink) g -= shrink * (x - centre);
  x -= g * gamma;
  if (!parts.l1) return x;
  const VF rest = absolute(x) - shrinkage;
  const VF kept = rest > 0.0f ? rest : VF{};
  return x < 0.0f ? -kept : kept;
}

}  // namespace
}  // namespace torchext::cpu
