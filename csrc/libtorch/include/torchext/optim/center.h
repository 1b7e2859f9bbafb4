// Optimizers with a centre: re-centring, and gradients at two points.
#pragma once

#include <torchext/optim/base.h>

#include <functional>
#include <optional>
#include <vector>

namespace torchext::optim {

/// A closure that runs forward and backward on a part of the data and returns its MEAN loss, and
/// the number of samples behind it.
struct WeightedClosure {
  torch::optim::Optimizer::LossClosure closure;
  double weight = 1.0;
};

/// One closure after the other, then nothing: see full_gradient_closures().
using ClosureSource = std::function<std::optional<WeightedClosure>()>;

/// What recenter() found at the new centre.
struct RecenterInfo {
  double loss;       ///< mean over all samples, weight decay not included
  double grad_norm;  ///< norm of the full gradient, weight decay included
  double samples;    ///< total weight of the closures
  bool converged;    ///< the gradient is zero: steps will do nothing
};

/// Base of SVRG, HALP, LP-SVRG and bit-centred SGD.
class CenterOptimizer : public LatticeOptimizer {
 public:
  /// True before the first centre, then after T steps; loopless: by a coin of 1/T per step.
  bool needs_recenter() const;

  /// Moves the centre to the present weights and takes the full gradient there, the mean over all
  /// samples of the closures.
  /// Throws std::invalid_argument for no samples; std::runtime_error for a full gradient that is
  /// not finite: the centre has moved then, the weights are valid, another recenter is needed.
  RecenterInfo recenter(const std::vector<WeightedClosure>& closures);
  RecenterInfo recenter(const ClosureSource& next);

  /// For loops that cannot pass a closure: `pass` runs forward and backward on the batch with the
  /// parameters at the centre; then run it once more as usual, then step().
  void at_centre(const std::function<void()>& pass);

  /// One step. The closure zeroes the gradients, runs forward and backward on a batch and returns
  /// the loss. Methods with a correction call it twice, first at the centre, then at the weights.
  /// Returns the loss at the weights before the step; undefined without a closure.
  /// Throws std::runtime_error before the first recenter, without gradients at the centre, for
  /// sparse gradients, for gradients that are not finite (Run::error_if_nonfinite), and
  /// std::invalid_argument for a closure that returns no loss; no weight has moved then.
  at::Tensor step(LossClosure closure = nullptr) override;

 protected:
  using LatticeOptimizer::LatticeOptimizer;

  struct Sums {
    std::vector<at::Tensor> grads;  // in the order of the members
    double loss = 0.0, weight = 0.0;
  };

  RecenterInfo recenter_with(const ClosureSource* next);
  virtual Sums gather(const Members& members, const ClosureSource* next);
  virtual void finish_epoch();
  virtual void commit(Members& members);
  virtual void start(Member& member);
  /// What the full gradient decides for the epoch, from its squared norms.
  virtual void new_center(Members& members, const std::vector<double>& squares);
  virtual void to_center();
  virtual void keep(Members& members);

 private:
  void check_center() const;
  std::vector<at::Tensor> take_gradients() const;
};

}  // namespace torchext::optim
