#include <torch/types.h>
#include <torchext/svrg.h>

namespace torchext::optim {

SVRG::SVRG(std::vector<torch::optim::OptimizerParamGroup> groups, SVRGOptions defaults, SVRGRun run)
    : CenterOptimizer({"SVRG", true, true}, std::move(groups),
                      std::make_unique<SVRGOptions>(std::move(defaults)), run) {}

std::unique_ptr<torch::optim::OptimizerParamState> SVRG::new_state() const {
  return std::make_unique<SVRGParamState>();
}

void SVRG::start(Member& m) {
  CenterOptimizer::start(m);
  m.state->z = at::zeros_like(m.state->center);
}

}  // namespace torchext::optim
