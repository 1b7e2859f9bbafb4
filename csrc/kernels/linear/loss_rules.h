// Slopes of losses after a move d of the scores, one row a lane; the CPU and CUDA share them.
//
// With probabilities p at z, and E = exp(d) - 1 (of softmax relative to the largest d):
//   logistic: P(z + d) - P(z) = P(high) P(-low) (1 - exp(-|d|)) with the sign of d,
//   softmax:  p_o(z + d) - p_o(z) = p_o (E_o - sum p E) / (1 + sum p E) for a small d,
// as exact for a move of 1e-9 as for one of 10.
#pragma once

#include "loss_terms.h"
#include "vec_math.h"

namespace torchext::cpu {
namespace {

/// Probabilities of either class at score z: up = 1/(1 + exp(-z)), down = 1/(1 + exp(z)).
struct Chance {
  VF up, down;
};
TX_INL Chance chance(VF z) {
  const VF less = exp_approx(-absolute(z)), more = 1.0f / (less + 1.0f);
  const VF rest = less * more;
  return {z < 0.0f ? rest : more, z < 0.0f ? more : rest};
}

/// Slope and second derivative along the score, without the weight.
struct Terms {
  VF slope, bent;
};

/// Of a loss whose outputs do not interact: target or sign y, score z, move d, direction s.
TX_INL Terms output_terms(RowLoss loss, bool moved, VF z, VF y, VF d, VF s) {
  if (loss == RowLoss::squared) return {moved ? d : z - y, s * s};
  const Chance here = chance(z), there = chance(z + d);
  const VF bent = there.up * there.down * s * s;
  if (!moved) return {y < 0.0f ? here.up : -here.down, bent};
  const VF rise = d < 0.0f ? here.up * there.down : there.up * here.down;
  const VF part = rise * -expm1_approx(-absolute(d));
  return {d < 0.0f ? -part : part, bent};
}

/// Of one class of softmax: probabilities before and after, its move d among moves from `least` to
/// `peak`, and mean = sum p (exp(d - peak) - 1) over the classes.
TX_INL VF softmax_slope(VF before, VF after, VF d, VF peak, VF least, VF mean) {
  const VF near = before * (expm1_approx(d - peak) - mean) / (mean + 1.0f);
  // Where the moves differ much, the difference of the probabilities loses nothing.
  return peak - least < 0.25f ? near : after - before;
}

}  // namespace
}  // namespace torchext::cpu
