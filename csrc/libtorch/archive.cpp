// Saving and loading: settings of the groups, states by number of the parameter, counters, seed.
#include <torch/serialize/archive.h>
#include <torch/types.h>
#include <torchext/optim/base.h>

#include <algorithm>

#include "fail.h"
#include "kernels/philox.h"
#include "lattice.h"

namespace torchext::optim {
namespace {

using torch::IValue;
using torch::serialize::InputArchive;
using torch::serialize::OutputArchive;

template <class T>
T read(InputArchive& archive, const std::string& name) {
  IValue value;
  archive.read(name, value);
  return value.to<T>();
}

/// Refuses a saved state that does not fit the parameter: the kernels trust sizes and dtypes.
void check_fit(const Method& method, int64_t number, const at::Tensor& param,
               const LatticeState& s) {
  const auto own = own_dtype(param);
  const auto check = [&](const char* name, const at::Tensor& t, int64_t elements,
                         std::initializer_list<at::ScalarType> types) {
    if (!t.defined()) return;
    if (t.numel() != elements)
      refuse(method.name, ".load(): ", name, " of parameter ", number, " has ", t.numel(),
             " elements, expected ", elements);
    if (std::find(types.begin(), types.end(), t.scalar_type()) == types.end())
      refuse(method.name, ".load(): ", name, " of parameter ", number, " is ", t.dtype());
  };
  const int64_t n = param.numel();
  check("center", s.center, n, {own});
  check("delta", s.delta, 1, {own});
  check("momentum_buffer", s.momentum_buffer, n, {own});
  check("z_mean", s.z_mean, n, {own});
  check("grad_mean", s.grad_mean, n, {own});
  check("stats", s.stats, 6, {at::kDouble});
  check("full_grad", s.full_grad, n, {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf});
  for (const at::Tensor& z : {s.z, s.z_kept, s.z_center}) {
    if (s.bits == 0)
      check("z", z, n, {own});
    else if (z.defined() && z.scalar_type() == at::kByte)
      check("z", z, (n + 1) / 2, {at::kByte});
    else
      check("z", z, n, {s.bits <= 8 ? at::kChar : at::kShort, at::kFloat});
  }
}

}  // namespace

void LatticeOptimizer::save(OutputArchive& archive) const {
  archive.write("method", IValue(std::string(method_.name)));
  archive.write("stream_version", IValue(int64_t{kStreamVersion}));
  archive.write("seed", IValue(static_cast<int64_t>(seed_)));
  const Counters& c = counters_;
  archive.write("counters", IValue(std::vector<int64_t>{c.t, c.epoch, c.global_step, c.pick,
                                                        c.centered, c.converged}));
  std::vector<int64_t> sizes;
  for (size_t g = 0; g < param_groups_.size(); ++g) {
    sizes.push_back(static_cast<int64_t>(param_groups_[g].params().size()));
    OutputArchive options(archive.compilation_unit());
    param_groups_[g].options().serialize(options);
    archive.write("group" + std::to_string(g), options);
  }
  archive.write("groups", IValue(sizes));
  std::vector<int64_t> numbers;
  for (const Member& m : members()) {
    if (m.state == nullptr) continue;
    numbers.push_back(m.number);
    OutputArchive state(archive.compilation_unit());
    m.state->serialize(state);
    archive.write("state" + std::to_string(m.number), state);
  }
  archive.write("states", IValue(numbers));
}

void LatticeOptimizer::load(InputArchive& archive) {
  IValue method;
  const bool ours = archive.try_read("method", method);
  if (!ours || method.toStringRef() != method_.name)
    refuse(method_.name, ".load(): the state was saved by ",
           ours ? method.toStringRef() : "another optimizer");
  const auto stream = read<int64_t>(archive, "stream_version");
  if (stream != kStreamVersion)
    refuse(method_.name, ".load(): the state was saved with random stream ", stream,
           ", this version has ", kStreamVersion);
  std::vector<int64_t> sizes;
  std::vector<at::Tensor> params;
  for (const auto& group : param_groups_) {
    sizes.push_back(static_cast<int64_t>(group.params().size()));
    params.insert(params.end(), group.params().begin(), group.params().end());
  }
  const auto saved_sizes = read<std::vector<int64_t>>(archive, "groups");
  if (saved_sizes != sizes)
    refuse(method_.name, ".load(): the saved param groups have ", saved_sizes,
           " parameters, this optimizer has ", sizes);

  // All is read and checked before anything changes.
  std::vector<std::unique_ptr<torch::optim::OptimizerOptions>> options;
  for (size_t g = 0; g < sizes.size(); ++g) {
    InputArchive part;
    archive.read("group" + std::to_string(g), part);
    options.push_back(param_groups_[g].options().clone());
    options.back()->serialize(part);
  }
  decltype(state_) states;
  for (const int64_t number : read<std::vector<int64_t>>(archive, "states")) {
    if (number < 0 || number >= static_cast<int64_t>(params.size()))
      refuse(method_.name, ".load(): the saved state has parameter ", number,
             ", this optimizer has ", params.size(), " parameters");
    InputArchive part;
    archive.read("state" + std::to_string(number), part);
    const at::Tensor& param = params[static_cast<size_t>(number)];
    auto& place = states[param.unsafeGetTensorImpl()] = new_state();
    place->serialize(part);
    check_fit(method_, number, param, dynamic_cast<LatticeState&>(*place));
  }
  const auto c = read<std::vector<int64_t>>(archive, "counters");
  if (c.size() != 6)
    refuse(method_.name, ".load(): the saved state has ", c.size(), " counters, expected 6");
  const auto seed = read<int64_t>(archive, "seed");

  for (size_t g = 0; g < sizes.size(); ++g) param_groups_[g].set_options(std::move(options[g]));
  state_ = std::move(states);
  counters_ = {c[0], c[1], c[2], c[3], c[4] != 0, c[5] != 0};
  seed_ = static_cast<uint64_t>(seed);
  grads_at_center_.clear();
  to_iterate();
}

}  // namespace torchext::optim
