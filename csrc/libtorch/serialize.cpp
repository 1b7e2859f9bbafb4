// Settings and states, field by field, to and from torch's archives.
#include <torch/serialize/archive.h>
#include <torchext/optim/options.h>
#include <torchext/optim/state.h>

namespace torchext::optim {
namespace {

template <class Self, class Visit>
void each_setting(Self& s, const Visit& visit) {
  visit("lr", s.lr);
  visit("weight_decay", s.weight_decay);
  visit("momentum", s.momentum);
  visit("dampening", s.dampening);
  visit("decoupled_weight_decay", s.decoupled_weight_decay);
  visit("nesterov", s.nesterov);
  visit("maximize", s.maximize);
  visit("svrg_coef", s.svrg_coef);
  visit("bits", s.bits);
  visit("nearest", s.nearest);
  visit("mu", s.mu);
  visit("mu0", s.mu0);
  visit("delta_floor", s.delta_floor);
  visit("delta", s.delta);
}

template <class Self, class Visit>
void each_tensor(Self& s, const Visit& visit) {
  visit("center", s.center);
  visit("z", s.z);
  visit("delta", s.delta);
  visit("full_grad", s.full_grad);
  visit("momentum_buffer", s.momentum_buffer);
  visit("z_center", s.z_center);
  visit("z_kept", s.z_kept);
  visit("z_mean", s.z_mean);
  visit("grad_mean", s.grad_mean);
  visit("stats", s.stats);
}

template <class Self, class Visit>
void each_number(Self& s, const Visit& visit) {
  visit("bits", s.bits);
  visit("mu", s.mu);
  visit("grad_norm", s.grad_norm);
  visit("loss", s.loss);
  visit("grid_delta", s.grid_delta);
}

/// Reads numbers as they were written.
struct ReadNumber {
  torch::serialize::InputArchive& archive;
  template <class T>
  void operator()(const char* name, T& value) const {
    torch::IValue saved;
    archive.read(name, saved);
    value = saved.to<T>();
  }
};
struct WriteNumber {
  torch::serialize::OutputArchive& archive;
  template <class T>
  void operator()(const char* name, const T& value) const {
    archive.write(name, torch::IValue(value));
  }
};

}  // namespace

void Settings::serialize(torch::serialize::InputArchive& archive) {
  each_setting(*this, ReadNumber{archive});
}

void Settings::serialize(torch::serialize::OutputArchive& archive) const {
  each_setting(*this, WriteNumber{archive});
}

void LatticeState::serialize(torch::serialize::InputArchive& archive) {
  each_tensor(*this, [&](const char* name, at::Tensor& t) {
    if (!archive.try_read(name, t, /*is_buffer=*/true)) t = at::Tensor();
  });
  torch::serialize::InputArchive numbers;
  archive.read("numbers", numbers);
  each_number(*this, ReadNumber{numbers});
}

void LatticeState::serialize(torch::serialize::OutputArchive& archive) const {
  each_tensor(*this, [&](const char* name, const at::Tensor& t) {
    if (t.defined()) archive.write(name, t, /*is_buffer=*/true);
  });
  torch::serialize::OutputArchive numbers(archive.compilation_unit());
  each_number(*this, WriteNumber{numbers});
  archive.write("numbers", numbers);
}

bool operator==(const LatticeState& a, const LatticeState& b) {
  std::vector<at::Tensor> tensors;
  std::vector<double> numbers;
  for (const LatticeState* s : {&a, &b}) {
    each_tensor(*s, [&](const char*, const at::Tensor& t) { tensors.push_back(t); });
    each_number(*s, [&](const char*, const auto& x) { numbers.push_back(double(x)); });
  }
  const auto same = [](const at::Tensor& x, const at::Tensor& y) {
    return x.defined() == y.defined() &&
           (!x.defined() || (x.dtype() == y.dtype() && at::equal(x, y)));
  };
  const auto t = static_cast<std::ptrdiff_t>(tensors.size() / 2);
  const auto n = static_cast<std::ptrdiff_t>(numbers.size() / 2);
  return std::equal(tensors.begin(), tensors.begin() + t, tensors.begin() + t, same) &&
         std::equal(numbers.begin(), numbers.begin() + n, numbers.begin() + n);
}

}  // namespace torchext::optim
