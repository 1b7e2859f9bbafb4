#include "checks.h"

#include <c10/util/Exception.h>

#include <cmath>

#include "fail.h"

namespace torchext::optim {
namespace {

bool positive(double x) { return x > 0.0 && std::isfinite(x); }
bool not_negative(double x) { return x >= 0.0 && std::isfinite(x); }

}  // namespace

void check_run(const Method& method, const Run& run) {
  if (run.T < 1) refuse("Invalid T: ", run.T, ", expected a number of steps, 1 or more");
  if (run.loopless && run.option != Option::kLast)
    refuse("Invalid option: loopless needs Option::kLast");
  if (run.anchor_dtype && !at::isFloatingType(*run.anchor_dtype))
    refuse("Invalid anchor_dtype: ", *run.anchor_dtype, ", expected a float dtype");
  if (run.running_anchor && (method.corrected || !method.center))
    refuse(method.name, " has no running anchor; BitCentredSGD has");
}

void check_settings(const Settings& s, const Run& run) {
  if (!positive(s.lr)) refuse("Invalid learning rate: ", s.lr);
  if (!not_negative(s.weight_decay)) refuse("Invalid weight_decay value: ", s.weight_decay);
  if (!not_negative(s.momentum)) refuse("Invalid momentum value: ", s.momentum);
  if (s.nesterov && (s.momentum <= 0.0 || s.dampening != 0.0))
    refuse("Nesterov momentum requires a momentum and zero dampening");
  if (!(s.svrg_coef >= 0.0 && s.svrg_coef <= 1.0))
    refuse("Invalid svrg_coef value: ", s.svrg_coef, ", expected 0 to 1");
  const int64_t most = run.codes ? 16 : 24;
  if (s.bits < 2 || s.bits > most)
    refuse("Invalid bits: ", s.bits, ", expected 2 to ", most, " for codes kept as ",
           run.codes ? "integers" : "float");
  if (!not_negative(s.delta_floor)) refuse("Invalid delta_floor: ", s.delta_floor);
  if (s.mu != kAutoMu && !positive(s.mu)) refuse("Invalid mu: ", s.mu);
  if (s.mu == kAutoMu && s.bits < 8)
    refuse("mu = kAutoMu needs 8 bits or more, got ", s.bits, ": give a number and tune it");
  if (s.mu0 != -1.0 && !positive(s.mu0)) refuse("Invalid mu0: ", s.mu0);
  if (s.delta != kAbsmax && !(s.delta >= 0x1p-126 && s.delta <= 0x1.fffffep127))
    refuse("Invalid delta: ", s.delta,
           ", expected a positive number, normal in float32, or kAbsmax");
  if (s.nearest) {
    TORCH_WARN_ONCE(
        "nearest rounding stalls as soon as every step is below half a spacing; use it for "
        "comparison only");
  }
}

void check_parameter(const Method& method, const at::Tensor& param) {
  if (param.is_complex()) refuse(method.name, " does not support complex parameters");
  if (!param.is_floating_point())
    refuse(method.name, " needs parameters of a float dtype, got ", param.dtype());
  if (!param.device().is_cpu())
    refuse(method.name, " needs parameters on the CPU, got one on ", param.device());
  for (int64_t d = 0; d < param.dim(); ++d)
    if (param.size(d) > 1 && param.stride(d) == 0)
      refuse(method.name,
             " needs parameters that do not overlap in memory, got an expanded tensor");
}

}  // namespace torchext::optim
