#include <torchext/halp.h>

#include <algorithm>
#include <cmath>

#include "lattice.h"
#include "spacing.h"

namespace torchext::optim {

double total_norm(const std::vector<double>& squares) {
  double total = 0.0;
  for (const double square : squares) total += square;
  return std::sqrt(total);
}

double next_mu(const EpochFacts& epoch, int bits) {
  const double mu = epoch.mu;
  if (epoch.after > 2 * epoch.before) return 4 * mu;
  if (epoch.clip_rate > 1e-3) return mu / 4;
  if (epoch.clip_rate > 1e-5) return mu / 1.5;
  if (epoch.clip_rate > 0.0 || epoch.offset == 0.0) return mu;
  const double room = bits < 12 ? 2.0 : 8.0;
  return std::min(std::max(epoch.before / (room * epoch.offset), mu / 4), 2 * mu);
}

// ---- both

void BitCentred::start(Member& m) {
  CenterOptimizer::start(m);
  new_codes(m);
  m.state->delta = at::zeros({}, m.state->center.options());  // until the gradient is known
}

void BitCentred::new_codes(Member& m) {
  m.state->bits = m.settings->bits;
  m.state->z = optim::new_codes(m.param, m.settings->bits, run_.codes);
}

void BitCentred::commit(Members& old) {
  CenterOptimizer::commit(old);
  for (Member& m : old)
    if (m.state->bits != m.settings->bits) new_codes(m);
}

void BitCentred::new_center(Members& found, const std::vector<double>& squares) {
  const double total = total_norm(squares);
  double size = 0.0;
  for (const Member& m : found) size += static_cast<double>(m.param.numel());
  // All mu before any spacing changes: with one scope for all they look at every member.
  std::vector<double> norms, mus;
  for (size_t i = 0; i < found.size(); ++i) {
    const Member& m = found[i];
    const double share = std::sqrt(static_cast<double>(m.param.numel()) / size);
    norms.push_back(run_.scope == Scope::kGlobal
                        ? total
                        : std::max(std::sqrt(squares[i]), m.settings->delta_floor * total * share));
    const double mu = m.settings->mu;
    mus.push_back(mu == kAutoMu ? choose_mu(m, norms[i], found) : mu);
  }
  for (size_t i = 0; i < found.size(); ++i) {
    LatticeState& s = *found[i].state;
    const auto top = static_cast<double>((int64_t{1} << (s.bits - 1)) - 1);
    s.mu = mus[i];
    s.grad_norm = norms[i];
    s.delta = at::scalar_tensor(norms[i] / (s.mu * top), s.center.options());
  }
}

double BitCentred::choose_mu(const Member& m, double norm, const Members& found) const {
  const LatticeState& s = *m.state;
  if (s.mu == 0.0) {
    if (m.settings->mu0 > 0.0) return m.settings->mu0;
    const double lr = m.settings->lr > 0.0 ? m.settings->lr : 1.0;
    return 10.0 / (lr * static_cast<double>(run_.T));
  }
  if (counters_.t == 0 || s.grad_norm == 0.0) return s.mu;
  double clipped = 0.0, updates = 0.0, offset = 0.0;
  for (const Member& other : run_.scope == Scope::kGlobal ? found : Members{m}) {
    if (!other.state->stats.defined()) continue;
    const double* sums = other.state->stats.data_ptr<double>();
    clipped += sums[0];
    updates += static_cast<double>(counters_.t * other.param.numel());
    offset = std::max(offset, std::max(sums[4], 1.0) * other.state->delta.item<double>());
  }
  return next_mu({s.mu, s.grad_norm, norm, clipped / std::max(updates, 1.0), offset},
                 static_cast<int>(s.bits));
}

// ---- HALP

HALP::HALP(std::vector<torch::optim::OptimizerParamGroup> groups, HALPOptions defaults, HALPRun run)
    : BitCentred({"HALP", true, true}, std::move(groups),
                 std::make_unique<HALPOptions>(std::move(defaults)), run) {}

std::unique_ptr<torch::optim::OptimizerParamState> HALP::new_state() const {
  return std::make_unique<HALPParamState>();
}

// ---- bit-centred SGD

BitCentredSGD::BitCentredSGD(std::vector<torch::optim::OptimizerParamGroup> groups,
                             BitCentredSGDOptions defaults, BitCentredSGDRun run)
    : BitCentred({"BitCentredSGD", true, false}, std::move(groups),
                 std::make_unique<BitCentredSGDOptions>(std::move(defaults)), run) {}

std::unique_ptr<torch::optim::OptimizerParamState> BitCentredSGD::new_state() const {
  return std::make_unique<BitCentredSGDParamState>();
}

BitCentredSGD::Sums BitCentredSGD::gather(const Members& found, const ClosureSource* next) {
  if (next != nullptr || !run_.running_anchor || counters_.epoch == 0)
    return CenterOptimizer::gather(found, next);
  Sums sums;
  sums.weight = 1.0;
  for (const Member& m : found) {
    const at::Tensor& mean = m.state->grad_mean;
    sums.grads.push_back(mean.defined() ? mean : at::zeros_like(m.state->center));
    sums.loss = found.front().state->loss;
  }
  return sums;
}

void BitCentredSGD::keep(Members& found) {
  CenterOptimizer::keep(found);
  if (!run_.running_anchor) return;
  for (const Member& m : found) {
    LatticeState& s = *m.state;
    if (!s.grad_mean.defined()) s.grad_mean = at::zeros_like(s.center);
    at::Tensor grad = m.param.grad().to(s.grad_mean.scalar_type());
    grad = at::where(grad.isfinite(), grad, s.grad_mean);  // the step skips those too
    s.grad_mean.add_(grad - s.grad_mean, 1.0 / static_cast<double>(counters_.t + 1));
  }
}

}  // namespace torchext::optim
