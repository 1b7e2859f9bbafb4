// LP-SGD and LP-SVRG: weights on a lattice that never moves.
#pragma once

#include <torchext/optim/center.h>

namespace torchext::optim {

class LPSGDOptions : public Options<LPSGDOptions> {
 public:
  explicit LPSGDOptions(double lr, double delta = kAbsmax) : Options(lr) {
    settings_.delta = delta;
  }
  TX_ARG(double, delta)
  TX_ARG(int64_t, bits)
  TX_ARG(bool, nearest)
};
class LPSGDParamState : public ParamState<LPSGDParamState> {};
using LPSGDRun = Run;

class LPSVRGOptions : public Options<LPSVRGOptions> {
 public:
  explicit LPSVRGOptions(double lr, double delta = kAbsmax) : Options(lr) {
    settings_.delta = delta;
    settings_.bits = 16;
  }
  TX_ARG(double, delta)
  TX_ARG(int64_t, bits)
  TX_ARG(bool, nearest)
  TX_ARG(double, svrg_coef)
};
class LPSVRGParamState : public ParamState<LPSVRGParamState> {};
using LPSVRGRun = Run;

/// SGD with weights on a fixed lattice, w <- Q(w - lr g_i(w)). The parameters are rounded to it
/// (nearest) at the first step. Accuracy stops at a floor.
/// Source: De Sa et al., High-Accuracy Low-Precision Training, arXiv 1803.03383.
class LPSGD : public LatticeOptimizer {
 public:
  LPSGD(std::vector<torch::optim::OptimizerParamGroup> groups, LPSGDOptions defaults,
        LPSGDRun run = {});
  LPSGD(std::vector<at::Tensor> params, LPSGDOptions defaults, LPSGDRun run = {})
      : LPSGD({torch::optim::OptimizerParamGroup(std::move(params))}, std::move(defaults), run) {}

  /// One step; the closure, if given, is called once, after the weights are on the lattice.
  /// Returns its loss. Throws as CenterOptimizer::step.
  at::Tensor step(LossClosure closure = nullptr) override;

 protected:
  std::unique_ptr<torch::optim::OptimizerParamState> new_state() const override;
};

/// SVRG with weights, and the centre c, on a fixed lattice,
///   w <- Q(w - lr (g_i(w) - coef (g_i(c) - g))).
/// Accuracy stops at a floor. Option::kMean would leave the lattice and is refused.
/// Source: De Sa et al., High-Accuracy Low-Precision Training, arXiv 1803.03383.
class LPSVRG : public CenterOptimizer {
 public:
  LPSVRG(std::vector<torch::optim::OptimizerParamGroup> groups, LPSVRGOptions defaults,
         LPSVRGRun run);
  LPSVRG(std::vector<at::Tensor> params, LPSVRGOptions defaults, LPSVRGRun run)
      : LPSVRG({torch::optim::OptimizerParamGroup(std::move(params))}, std::move(defaults), run) {}

 protected:
  std::unique_ptr<torch::optim::OptimizerParamState> new_state() const override;
  void finish_epoch() override;
  void commit(Members& members) override;
  void start(Member&) override {}  // the codes come from the weights
  void to_center() override;
};

}  // namespace torchext::optim
