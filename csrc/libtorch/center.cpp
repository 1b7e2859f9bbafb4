#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>
#include <torchext/optim/center.h>
#include <torchext/optim/full_gradient.h>

#include <cmath>

#include "fail.h"
#include "lattice.h"
#include "spacing.h"

namespace torchext::optim {
namespace {

/// Puts the random state of the CPU back when it goes.
class KeptRandomState {
 public:
  KeptRandomState() : generator_(at::detail::getDefaultCPUGenerator()) {
    const std::lock_guard<std::mutex> lock(generator_.mutex());
    state_ = generator_.get_state();
  }
  KeptRandomState(const KeptRandomState&) = delete;
  KeptRandomState& operator=(const KeptRandomState&) = delete;
  ~KeptRandomState() {
    const std::lock_guard<std::mutex> lock(generator_.mutex());
    generator_.set_state(state_);
  }

 private:
  at::Generator generator_;
  at::Tensor state_;
};

void clear_gradients(const std::vector<torch::optim::OptimizerParamGroup>& groups) {
  for (const auto& group : groups)
    for (const at::Tensor& p : group.params()) p.mutable_grad().reset();
}

}  // namespace

bool CenterOptimizer::needs_recenter() const {
  if (!counters_.centered) return true;
  if (!run_.loopless) return counters_.t >= run_.T;
  return counters_.t > 0 && (sampler_word(0) >> 8) * 0x1p-24 < 1.0 / static_cast<double>(run_.T);
}

// ---- re-centring

RecenterInfo CenterOptimizer::recenter(const std::vector<WeightedClosure>& closures) {
  auto next = closures.begin();
  return recenter([&]() -> std::optional<WeightedClosure> {
    if (next == closures.end()) return std::nullopt;
    return *next++;
  });
}

RecenterInfo CenterOptimizer::recenter(const ClosureSource& next) { return recenter_with(&next); }

RecenterInfo CenterOptimizer::recenter_with(const ClosureSource* next) {
  const at::NoGradGuard no_grad;
  grads_at_center_.clear();
  finish_epoch();
  counters_.centered = false;
  Members found = with_codes();
  const Sums sums = gather(found, next);
  if (!(sums.weight > 0.0))
    refuse("recenter: the closures have no samples; the full gradient is unknown");
  for (const at::Tensor& g : sums.grads) g.div_(sums.weight);
  std::vector<double> squares;
  for (size_t i = 0; i < found.size(); ++i) {
    const double decay = found[i].settings->weight_decay * (found[i].settings->maximize ? -1 : 1);
    squares.push_back(
        square_sum(sums.grads[i], decay != 0.0 ? found[i].state->center : at::Tensor(), decay));
  }
  const double norm = total_norm(squares), loss = sums.loss / sums.weight;
  if (!std::isfinite(norm))
    fail("recenter: the full gradient is not finite; the weights are those of the last step");
  for (const Member& m : found) m.state->loss = loss;
  new_center(found, squares);
  const bool count = counts();
  for (size_t i = 0; i < found.size(); ++i) {
    LatticeState& s = *found[i].state;
    if (method_.corrected)
      s.full_grad = sums.grads[i].to(run_.anchor_dtype.value_or(sums.grads[i].scalar_type()));
    if (count) s.stats = at::zeros({6}, at::kDouble);
  }
  counters_.t = 0;
  ++counters_.epoch;
  counters_.centered = true;
  counters_.converged = norm == 0.0;
  if (run_.option == Option::kRandom)
    counters_.pick =
        static_cast<int64_t>((uint64_t{sampler_word(1)} * static_cast<uint64_t>(run_.T)) >> 32);
  return {loss, norm, sums.weight, counters_.converged};
}

CenterOptimizer::Sums CenterOptimizer::gather(const Members& found, const ClosureSource* next) {
  if (next == nullptr || !*next)
    refuse(method_.name,
           ".recenter() needs closures over the data, for example "
           "full_gradient_closures(model, loss, loader)");
  Sums sums;
  for (const Member& m : found)
    sums.grads.push_back(at::zeros(m.param.sizes(), own_dtype(m.param)));
  while (const std::optional<WeightedClosure> part = (*next)()) {
    if (!(part->weight >= 0.0 && std::isfinite(part->weight)))
      refuse("recenter: a closure has weight ", part->weight, ", expected 0 or more samples");
    clear_gradients(param_groups_);
    sums.loss += part->weight * loss_of(part->closure).item<double>();
    sums.weight += part->weight;
    for (size_t i = 0; i < found.size(); ++i) {
      const at::Tensor& grad = found[i].param.grad();
      if (!grad.defined()) continue;
      if (grad.layout() != at::kStrided) fail("recenter: sparse gradients are not supported");
      sums.grads[i].add_(grad.to(sums.grads[i].scalar_type()), part->weight);
    }
  }
  clear_gradients(param_groups_);
  return sums;
}

void CenterOptimizer::finish_epoch() {
  Members found = members();
  std::erase_if(found, [](const Member& m) { return !m.param.requires_grad(); });
  Members old = found;
  std::erase_if(old, [](const Member& m) { return !m.has_codes(); });
  for (const Member& m : old) {
    LatticeState& s = *m.state;
    if (s.z_kept.defined()) s.z = s.z_kept;
    s.z_kept.reset();
    if (s.z_mean.defined()) {
      s.center.add_(s.delta.defined() ? s.z_mean * s.delta : s.z_mean);
      s.z.zero_();
      s.z_mean.reset();
    }
    if (run_.reset_momentum) s.momentum_buffer.reset();
  }
  commit(old);
  for (Member& m : found) {
    if (m.has_codes()) continue;
    make_state(m);
    start(m);
  }
}

void CenterOptimizer::commit(Members& old) {
  std::vector<Entry> entries;
  for (const Member& m : old) entries.push_back(entry_of(m));
  optim::commit(entries);
}

void CenterOptimizer::start(Member& m) {
  m.state->center = m.param.detach().to(own_dtype(m.param), /*non_blocking=*/false, /*copy=*/true,
                                        at::MemoryFormat::Contiguous);
}

void CenterOptimizer::new_center(Members& found, const std::vector<double>& squares) {
  for (const Member& m : found) m.state->grad_norm = total_norm(squares);
}

// ---- steps

void CenterOptimizer::check_center() const {
  if (!counters_.centered)
    fail(method_.name, ".step(): no centre yet; call recenter(closures) first.");
}

void CenterOptimizer::at_centre(const std::function<void()>& pass) {
  check_center();
  struct ToIterate {
    const CenterOptimizer& optimizer;
    ~ToIterate() {
      const at::NoGradGuard no_grad;
      optimizer.to_iterate();
    }
  } const to_iterate_at_the_end{*this};
  const KeptBuffers buffers(buffers_);
  std::optional<KeptRandomState> random;
  if (run_.preserve_rng) random.emplace();
  {
    const at::NoGradGuard no_grad;
    to_center();
  }
  pass();
  grads_at_center_ = take_gradients();
}

void CenterOptimizer::to_center() {
  for (const Member& m : with_codes()) m.param.detach().copy_(m.state->center);
}

std::vector<at::Tensor> CenterOptimizer::take_gradients() const {
  std::vector<at::Tensor> out;
  for (const Member& m : members()) {
    if (!m.has_grad()) continue;
    at::Tensor& grad = m.param.mutable_grad();
    if (grad.layout() != at::kStrided) fail(method_.name, " does not support sparse gradients");
    out.resize(static_cast<size_t>(m.number) + 1);
    // A view of somebody's buffer would be overwritten by the second pass.
    const bool shared = grad.is_view() || grad.storage().nbytes() != grad.nbytes();
    out.back() = shared ? grad.clone() : grad;
    grad.reset();
  }
  // Never empty after a pass, so that step() knows of it.
  if (out.empty()) out.emplace_back();
  return out;
}

at::Tensor CenterOptimizer::step(LossClosure closure) {
  const at::NoGradGuard no_grad;
  check_center();
  at::Tensor loss;
  if (closure) {
    if (method_.corrected) at_centre([&] { loss_of(closure); });
    loss = loss_of(closure);
  } else if (method_.corrected && grads_at_center_.empty()) {
    fail(method_.name,
         ".step() needs a closure, or a preceding at_centre() pass, because the "
         "gradient is evaluated at two points.");
  }
  Members found = ready();
  keep(found);
  apply(found);
  return loss;
}

void CenterOptimizer::keep(Members& found) {
  if (run_.option == Option::kRandom && counters_.t == counters_.pick) {
    for (const Member& m : with_codes()) m.state->z_kept = m.state->z.clone();
  } else if (run_.option == Option::kMean) {
    for (const Member& m : found) {
      LatticeState& s = *m.state;
      if (!s.z_mean.defined()) s.z_mean = at::zeros_like(s.center);
      const double share = 1.0 / static_cast<double>(counters_.t + 1);
      s.z_mean.add_(code_values(s.z, s.center) - s.z_mean, share);
    }
  }
}

}  // namespace torchext::optim
