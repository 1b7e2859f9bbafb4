// Trains a small network from a file and writes down every step, for a comparison with the Python
// classes (tests/python/test_libtorch.py).
//
//   trajectory RUN RESULT
//
// RUN holds a dict of tensors (torch.save): the batches "x" and "y" of each step, all data "all_x"
// and "all_y", the weights "p0", "p1", .. and the settings, one-element tensors. RESULT gets the
// weights, codes, spacings and losses after each step, as "<step>/<name>".
#include <torch/torch.h>
#include <torchext/optim.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

using namespace torchext::optim;
using at::Tensor;

namespace {

class Dict {
 public:
  explicit Dict(const char* path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    for (const auto& item : torch::pickle_load(bytes).toGenericDict())
      tensors_[item.key().toStringRef()] = item.value().toTensor();
  }
  Tensor operator[](const std::string& name) const { return tensors_.at(name); }
  double number(const std::string& name, double otherwise) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? otherwise : found->second.item<double>();
  }
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }

 private:
  std::map<std::string, Tensor> tensors_;
};

Run run_of(const Dict& in) {
  Run run;
  run.T = static_cast<int64_t>(in.number("T", 1));
  run.scope = in.number("global", 0) != 0 ? Scope::kGlobal : Scope::kTensor;
  run.codes = in.number("simulate", 0) == 0;
  run.option = static_cast<Option>(static_cast<int>(in.number("option", 1)));
  run.loopless = in.number("loopless", 0) != 0;
  if (in.has("seed")) run.seed = static_cast<uint64_t>(in["seed"].item<int64_t>());
  run.reset_momentum = in.number("reset_momentum", 0) != 0;
  run.running_anchor = in.number("running_anchor", 0) != 0;
  if (in.number("bfloat16_anchor", 0) != 0) run.anchor_dtype = at::kBFloat16;
  return run;
}

void fill(Settings& s, const Dict& in) {
  s.weight_decay = in.number("weight_decay", s.weight_decay);
  s.momentum = in.number("momentum", s.momentum);
  s.dampening = in.number("dampening", s.dampening);
  s.decoupled_weight_decay = in.number("decoupled_weight_decay", 0) != 0;
  s.nesterov = in.number("nesterov", 0) != 0;
  s.maximize = in.number("maximize", 0) != 0;
  s.svrg_coef = in.number("svrg_coef", s.svrg_coef);
  s.bits = static_cast<int64_t>(in.number("bits", static_cast<double>(s.bits)));
  s.mu = in.number("mu", s.mu);
  s.delta = in.number("delta", s.delta);
}

class Network {
 public:
  explicit Network(const Dict& in) {
    for (int k = 0; in.has("p" + std::to_string(k)); ++k)
      params.push_back(in["p" + std::to_string(k)].clone().requires_grad_());
  }
  Tensor loss(const Tensor& x, const Tensor& y) const {
    const Tensor hidden = at::tanh(at::matmul(x, params[0]) + params[1]);
    return (at::matmul(hidden, params[2]) - y).square().mean();
  }
  std::vector<Tensor> params;
};

template <class Optimizer>
void train(Optimizer& opt, Network& net, const Dict& in, const char* path) {
  const auto closure = [&](const Tensor& x, const Tensor& y) {
    return [&opt, &net, x, y] {
      opt.zero_grad();
      const Tensor loss = net.loss(x, y);
      loss.backward();
      return loss;
    };
  };
  c10::impl::GenericDict out(c10::StringType::get(), c10::TensorType::get());
  const Tensor xs = in["x"], ys = in["y"], all_x = in["all_x"], all_y = in["all_y"];
  const int64_t part = all_x.size(0) / 2;
  for (int64_t k = 0; k < xs.size(0); ++k) {
    if constexpr (std::is_base_of_v<CenterOptimizer, Optimizer>) {
      if (opt.needs_recenter()) {
        const bool pass = in.number("running_anchor", 0) == 0 || k == 0;
        const auto first = closure(all_x.narrow(0, 0, part), all_y.narrow(0, 0, part));
        const int64_t rest = all_x.size(0) - part;
        const auto second = closure(all_x.narrow(0, part, rest), all_y.narrow(0, part, rest));
        RecenterInfo info{};
        if constexpr (std::is_same_v<Optimizer, BitCentredSGD>) {
          if (!pass) info = opt.recenter();
        }
        if (pass)
          info = opt.recenter(
              {{first, static_cast<double>(part)}, {second, static_cast<double>(rest)}});
        out.insert(std::to_string(k) + "/norm", torch::tensor(info.grad_norm, at::kDouble));
      }
    }
    const std::string step = std::to_string(k) + "/";
    out.insert(step + "loss", opt.step(closure(xs[k], ys[k])).detach());
    for (size_t i = 0; i < net.params.size(); ++i) {
      const LatticeState* s = opt.state_of(net.params[i]);
      out.insert(step + "p" + std::to_string(i), net.params[i].detach().clone());
      out.insert(step + "z" + std::to_string(i), s->z.clone());
      if (s->delta.defined()) out.insert(step + "delta" + std::to_string(i), s->delta.clone());
    }
  }
  const std::vector<char> bytes = torch::pickle_save(out);
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

template <class Optimizer, class OptimizerOptions>
void run(OptimizerOptions options, const Dict& in, const char* path) {
  Network net(in);
  fill(options.settings(), in);
  Optimizer opt(net.params, options, run_of(in));
  train(opt, net, in, path);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "trajectory RUN RESULT\n";
    return 2;
  }
  const Dict in(argv[1]);
  at::set_num_threads(1);
  torch::manual_seed(0);
  const double lr = in.number("lr", 0);
  switch (static_cast<int>(in.number("method", -1))) {
    case 0: run<SVRG>(SVRGOptions(lr), in, argv[2]); break;
    case 1: run<HALP>(HALPOptions(lr), in, argv[2]); break;
    case 2: run<BitCentredSGD>(BitCentredSGDOptions(lr), in, argv[2]); break;
    case 3: run<LPSVRG>(LPSVRGOptions(lr), in, argv[2]); break;
    case 4: run<LPSGD>(LPSGDOptions(lr), in, argv[2]); break;
    default: std::cerr << "method must be 0 to 4\n"; return 2;
  }
}
