// Least squares as closures: the gradients are computed here, so that a step costs no autograd.
#pragma once

#include <torch/torch.h>
#include <torchext/optim.h>

#include <random>
#include <vector>

namespace torchext::optim {

/// f(w) = mean (x_i.w - y_i)^2 / 2 over n examples in d dimensions, one parameter.
class LeastSquares {
 public:
  LeastSquares(int64_t n, int64_t d, uint64_t seed, at::ScalarType dtype = at::kDouble)
      : w(torch::zeros({d}, dtype).requires_grad_()), random_(seed) {
    std::normal_distribution<double> normal;
    x = torch::empty({n, d}, at::kDouble);
    double* values = x.data_ptr<double>();
    for (int64_t i = 0; i < n * d; ++i) values[i] = normal(random_);
    w_true = torch::zeros({d}, at::kDouble);
    std::uniform_real_distribution<double> uniform(0.0, 100.0);
    for (int64_t j = 0; j < std::min<int64_t>(d, 10); ++j) w_true[j] = uniform(random_);
    y = torch::mv(x, w_true);
    double* labels = y.data_ptr<double>();
    for (int64_t i = 0; i < n; ++i) labels[i] += 10.0 * normal(random_);
    const double dx = x.abs().max().item<double>() / 127.0;
    x = (torch::round(x / dx) * dx).to(dtype);  // 8-bit inputs
    y = y.to(dtype);
  }

  /// One example drawn by the problem.
  torch::optim::Optimizer::LossClosure example() {
    const auto i = static_cast<int64_t>(random_() % static_cast<uint64_t>(x.size(0)));
    return [this, i] { return gradient_of(i); };
  }

  WeightedClosure all() {
    return {[this] {
              const at::Tensor r = torch::mv(x, w.detach()) - y;
              set_gradient(torch::mv(x.t(), r) / static_cast<double>(x.size(0)));
              return r.square().mean() / 2;
            },
            static_cast<double>(x.size(0))};
  }

  double gradient_norm() {
    all().closure();
    return w.grad().norm().item<double>();
  }

  at::Tensor x, y, w, w_true;

 private:
  at::Tensor gradient_of(int64_t i) {
    const at::Tensor row = x[i];
    const at::Tensor r = torch::dot(row, w.detach()) - y[i];
    set_gradient(row * r);
    return r.square() / 2;
  }
  void set_gradient(const at::Tensor& g) { w.mutable_grad() = g; }

  std::mt19937_64 random_;
};

/// Steps with re-centring when it is due.
template <class Optimizer>
void train(Optimizer& opt, LeastSquares& problem, int64_t steps) {
  for (int64_t k = 0; k < steps; ++k) {
    if constexpr (std::is_base_of_v<CenterOptimizer, Optimizer>) {
      if (opt.needs_recenter()) opt.recenter({problem.all()});
    }
    opt.step(problem.example());
  }
}

}  // namespace torchext::optim
