#include <torch/types.h>
#include <torchext/lp.h>

#include <algorithm>

#include "fail.h"
#include "lattice.h"

namespace torchext::optim {
namespace {

double largest(const at::Tensor& p) {
  return p.numel() == 0 ? 0.0 : p.detach().abs().max().item<double>();
}

}  // namespace

void LatticeOptimizer::to_lattice() {
  Members fresh = members();
  std::erase_if(fresh, [](const Member& m) {
    return !m.param.requires_grad() || (m.state != nullptr && m.state->bits == m.settings->bits &&
                                        m.state->grid_delta == m.settings->delta);
  });
  double most = 0.0;
  for (const Member& m : fresh) {
    if (m.param.isnan().any().item<bool>())
      refuse("parameter ", m.number, " holds NaN, which has no place on a lattice");
    most = std::max(most, largest(m.param));
  }
  std::vector<double> spacings;
  for (const Member& m : fresh) {
    double delta = m.settings->delta;
    if (delta == kAbsmax) {  // a tensor of zeros takes the range of the largest one
      const double own = largest(m.param);
      delta = (own != 0.0 ? own : most) /
              static_cast<double>((int64_t{1} << (m.settings->bits - 1)) - 1);
      if (!(delta >= 0x1p-126))
        refuse("delta = kAbsmax needs weights that are not all zero: give a number");
    }
    spacings.push_back(delta);
  }
  std::vector<Entry> entries;
  for (size_t i = 0; i < fresh.size(); ++i) {
    Member& m = fresh[i];
    make_state(m);
    LatticeState& s = *m.state;
    s.grid_delta = m.settings->delta;
    s.bits = m.settings->bits;
    s.delta = at::scalar_tensor(spacings[i], own_dtype(m.param));
    s.z = new_codes(m.param, s.bits, run_.codes);
    entries.push_back(entry_of(m));
    entries.back().rule.bits = static_cast<int>(s.bits);
  }
  encode(entries);
}

// ---- LP-SGD

LPSGD::LPSGD(std::vector<torch::optim::OptimizerParamGroup> groups, LPSGDOptions defaults,
             LPSGDRun run)
    : LatticeOptimizer({"LPSGD", false, false}, std::move(groups),
                       std::make_unique<LPSGDOptions>(std::move(defaults)), run) {}

std::unique_ptr<torch::optim::OptimizerParamState> LPSGD::new_state() const {
  return std::make_unique<LPSGDParamState>();
}

at::Tensor LPSGD::step(LossClosure closure) {
  const at::NoGradGuard no_grad;
  to_lattice();
  if (counts())
    for (const Member& m : with_codes())
      if (!m.state->stats.defined()) m.state->stats = at::zeros({6}, at::kDouble);
  at::Tensor loss;
  if (closure) loss = loss_of(closure);
  apply(ready());
  return loss;
}

// ---- LP-SVRG

LPSVRG::LPSVRG(std::vector<torch::optim::OptimizerParamGroup> groups, LPSVRGOptions defaults,
               LPSVRGRun run)
    : CenterOptimizer({"LPSVRG", true, true}, std::move(groups),
                      std::make_unique<LPSVRGOptions>(std::move(defaults)), run) {
  if (run.option == Option::kMean)
    refuse("Invalid option: Option::kMean, the mean of iterates is not on the lattice");
}

std::unique_ptr<torch::optim::OptimizerParamState> LPSVRG::new_state() const {
  return std::make_unique<LPSVRGParamState>();
}

void LPSVRG::commit(Members& old) {
  std::vector<Entry> entries;
  for (const Member& m : old) entries.push_back(entry_of(m));
  materialize(entries);
}

void LPSVRG::finish_epoch() {
  CenterOptimizer::finish_epoch();
  to_lattice();
  for (const Member& m : with_codes()) m.state->z_center = m.state->z.clone();
}

void LPSVRG::to_center() {
  std::vector<Entry> entries;
  for (const Member& m : with_codes()) {
    if (!m.state->z_center.defined()) continue;
    entries.push_back(entry_of(m));
    entries.back().z = m.state->z_center;
  }
  materialize(entries);
}

}  // namespace torchext::optim
