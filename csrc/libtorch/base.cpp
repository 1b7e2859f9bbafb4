#include <torch/types.h>
#include <torchext/optim/base.h>

#include <cmath>
#include <typeinfo>

#include "checks.h"
#include "fail.h"
#include "kernels/philox.h"
#include "lattice.h"

namespace torchext::optim {
namespace {

using torch::optim::OptimizerParamGroup;

const Settings& settings_of(const OptimizerParamGroup& group) {
  return dynamic_cast<const HasSettings&>(group.options()).settings();
}

LatticeRule rule_of(const Settings& s, int64_t bits, bool first_momentum) {
  LatticeRule r{};
  r.lr = s.lr;
  r.weight_decay = s.weight_decay;
  r.coef = s.svrg_coef;
  r.momentum = s.momentum;
  r.dampening = s.dampening;
  r.bits = static_cast<int>(bits);
  r.lattice = bits != 0;
  r.nearest = s.nearest;
  r.maximize = s.maximize;
  r.nesterov = s.nesterov;
  r.decoupled = s.decoupled_weight_decay;
  r.first_momentum = first_momentum;
  return r;
}

/// Entries of the sums of a tensor, as the kernels fill them.
enum Sum { kClipped, kStill, kNoise, kMoved, kPeak, kSkipped };

}  // namespace

LatticeOptimizer::LatticeOptimizer(Method method, std::vector<OptimizerParamGroup> groups,
                                   std::unique_ptr<torch::optim::OptimizerOptions> defaults,
                                   Run run)
    : Optimizer(std::move(groups), std::move(defaults)), method_(method), run_(run) {
  check_run(method_, run_);
  for (const auto& group : param_groups_) check_group(group);
  counters_.centered = !method_.center;
  // The draw of the Python classes, so that the same torch.manual_seed gives the same seed.
  seed_ = run_.seed ? *run_.seed
                    : static_cast<uint64_t>(at::randint(INT64_MAX, {}, at::kLong).item<int64_t>());
}

void LatticeOptimizer::check_group(const OptimizerParamGroup& group) const {
  const torch::optim::OptimizerOptions &given = group.options(), &ours = *defaults_;
  if (typeid(given) != typeid(ours))
    refuse(method_.name, ": a param group has the options of another optimizer");
  check_settings(settings_of(group), run_);
  for (const at::Tensor& p : group.params()) check_parameter(method_, p);
}

void LatticeOptimizer::add_param_group(const OptimizerParamGroup& group) {
  OptimizerParamGroup whole(group);
  if (!whole.has_options()) whole.set_options(defaults_->clone());
  check_group(whole);
  Optimizer::add_param_group(whole);
  if (method_.center) counters_.centered = false;
}

// ---- members

LatticeOptimizer::Members LatticeOptimizer::members() const {
  Members out;
  int64_t number = 0;
  for (const auto& group : param_groups_) {
    const Settings& settings = settings_of(group);
    for (const at::Tensor& p : group.params()) {
      const auto found = state_.find(p.unsafeGetTensorImpl());
      auto* state =
          found == state_.end() ? nullptr : dynamic_cast<LatticeState*>(found->second.get());
      if (p.requires_grad() || state != nullptr) out.push_back({number, p, &settings, state});
      ++number;
    }
  }
  return out;
}

LatticeOptimizer::Members LatticeOptimizer::with_codes() const {
  Members all = members();
  std::erase_if(all, [](const Member& m) { return !m.has_codes(); });
  return all;
}

void LatticeOptimizer::make_state(Member& m) {
  if (m.state != nullptr) return;
  auto& place = state_[m.param.unsafeGetTensorImpl()];
  place = new_state();
  m.state = dynamic_cast<LatticeState*>(place.get());
}

const LatticeState* LatticeOptimizer::state_of(const at::Tensor& param) const {
  const auto found = state_.find(param.unsafeGetTensorImpl());
  return found == state_.end() ? nullptr : dynamic_cast<const LatticeState*>(found->second.get());
}

Entry LatticeOptimizer::entry_of(const Member& m) {
  Entry e;
  e.param = m.param;
  e.z = m.state->z;
  e.center = m.state->center;
  e.delta = m.state->delta;
  return e;
}

uint32_t LatticeOptimizer::sampler_word(uint32_t draw) const {
  const Key parent = fold_in(Key{seed_, 0}, Purpose::kSampler);
  return draw1(fold_in(parent, static_cast<uint32_t>(counters_.global_step)), 0, 0, draw);
}

// ---- steps

at::Tensor LatticeOptimizer::loss_of(const LossClosure& closure) const {
  const at::AutoGradMode with_grad(true);
  at::Tensor loss = closure();
  if (!loss.defined())
    refuse(method_.name, ": the closure must return the loss, got an undefined tensor");
  return loss;
}

LatticeOptimizer::Members LatticeOptimizer::ready() const {
  Members found = members();
  std::erase_if(found, [](const Member& m) { return !m.has_grad(); });
  for (const Member& m : found) {
    if (m.param.grad().layout() != at::kStrided)
      fail(method_.name, " does not support sparse gradients");
    if (!m.has_codes())
      fail(method_.name, ".step(): no centre yet; call recenter(closures) first.");
  }
  if (!run_.error_if_nonfinite) return found;
  for (const Member& m : found) {
    const auto number = static_cast<size_t>(m.number);
    bool finite = m.param.grad().isfinite().all().item<bool>();
    if (number < grads_at_center_.size() && grads_at_center_[number].defined())
      finite = finite && grads_at_center_[number].isfinite().all().item<bool>();
    if (!finite)
      fail(method_.name, ".step(): the gradient of parameter ", m.number, " is not finite");
  }
  return found;
}

void LatticeOptimizer::apply(const Members& found) {
  const Key key = fold_in(fold_in(Key{seed_, 0}, Purpose::kWeight),
                          static_cast<uint32_t>(counters_.global_step));
  std::vector<Entry> entries;
  if (!counters_.converged) {
    for (const Member& m : found) {
      LatticeState& s = *m.state;
      const bool first = !s.momentum_buffer.defined();
      if (first && m.settings->momentum != 0.0)
        s.momentum_buffer = at::zeros(m.param.sizes(), own_dtype(m.param));
      Entry e = entry_of(m);
      e.rule = rule_of(*m.settings, s.bits, first);
      e.rule.key = key;
      e.stream = static_cast<uint32_t>(m.number);
      e.grad = m.param.grad();
      if (s.full_grad.defined()) {
        const auto number = static_cast<size_t>(m.number);
        if (number < grads_at_center_.size()) e.grad_center = grads_at_center_[number];
        if (!e.grad_center.defined()) e.grad_center = at::zeros_like(e.grad);
        e.full_grad = s.full_grad;
      }
      if (m.settings->momentum != 0.0) e.momentum = s.momentum_buffer;
      e.stats = s.stats;
      entries.push_back(std::move(e));
    }
    optim::step(entries);
  }
  grads_at_center_.clear();
  ++counters_.t;
  ++counters_.global_step;
}

void LatticeOptimizer::to_iterate() const {
  std::vector<Entry> entries;
  for (const Member& m : with_codes()) entries.push_back(entry_of(m));
  materialize(entries);
}

// ---- telemetry

bool LatticeOptimizer::counts() const {
  bool automatic = false;
  for (const Member& m : members()) automatic = automatic || m.settings->mu == kAutoMu;
  return run_.telemetry || automatic;
}

std::vector<Telemetry> LatticeOptimizer::telemetry() const {
  if (!counts()) fail(method_.name, ".telemetry() needs Run::telemetry");
  std::vector<Telemetry> out;
  for (const Member& m : with_codes())
    if (m.state->stats.defined()) out.push_back(telemetry_of(m));
  return out;
}

Telemetry LatticeOptimizer::telemetry_of(const Member& m) const {
  const LatticeState& s = *m.state;
  const double* sums = s.stats.data_ptr<double>();
  Telemetry out;
  out.steps = counters_.t;
  out.nonfinite = static_cast<int64_t>(sums[kSkipped]);
  out.grad_norm = s.grad_norm;
  out.loss = s.loss;
  out.mu = s.mu;
  if (s.bits == 0) return out;
  const auto updates = static_cast<double>(std::max<int64_t>(counters_.t * m.param.numel(), 1));
  const auto top = static_cast<double>((int64_t{1} << (s.bits - 1)) - 1);
  out.delta = s.delta.item<double>();
  out.radius = out.delta * top;
  out.clip_rate = sums[kClipped] / updates;
  out.peak = sums[kPeak] / top;
  out.noise_ratio = sums[kMoved] != 0.0 ? std::sqrt(sums[kNoise] / sums[kMoved]) : 0.0;
  out.zero_rate = sums[kStill] / updates;
  return out;
}

}  // namespace torchext::optim
