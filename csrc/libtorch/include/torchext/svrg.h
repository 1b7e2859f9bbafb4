// SVRG: variance reduction in full precision.
#pragma once

#include <torchext/optim/center.h>

namespace torchext::optim {

class SVRGOptions : public Options<SVRGOptions> {
 public:
  explicit SVRGOptions(double lr) : Options(lr) {}
  TX_ARG(double, svrg_coef)
};
class SVRGParamState : public ParamState<SVRGParamState> {};
using SVRGRun = Run;

/// Stochastic variance-reduced gradient, on a displacement z from the centre c:
///   z <- z - lr (g_i(c + z) - coef (g_i(c) - g)),   w = c + z,
/// with the full gradient g at c. Keeping z, and not w, in full precision lets float32 reach
/// gradient norms that updates of w cannot. Memory: 12 bytes a float32 weight beside weight and
/// gradient.
/// Source: Johnson and Zhang, Accelerating stochastic gradient descent using predictive variance
/// reduction, NIPS 2013; coef: Yin et al., A Coefficient Makes SVRG Effective, ICLR 2025.
class SVRG : public CenterOptimizer {
 public:
  SVRG(std::vector<torch::optim::OptimizerParamGroup> groups, SVRGOptions defaults, SVRGRun run);
  SVRG(std::vector<at::Tensor> params, SVRGOptions defaults, SVRGRun run)
      : SVRG({torch::optim::OptimizerParamGroup(std::move(params))}, std::move(defaults), run) {}

 protected:
  std::unique_ptr<torch::optim::OptimizerParamState> new_state() const override;
  void start(Member& member) override;
};

}  // namespace torchext::optim
