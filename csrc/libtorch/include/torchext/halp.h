// HALP and bit-centred SGD: integers around a centre, on a lattice that shrinks with the gradient.
#pragma once

#include <torchext/optim/center.h>

namespace torchext::optim {

class HALPOptions : public Options<HALPOptions> {
 public:
  explicit HALPOptions(double lr) : Options(lr) { settings_.mu = kAutoMu; }
  TX_ARG(double, mu)
  TX_ARG(double, mu0)
  TX_ARG(int64_t, bits)
  TX_ARG(bool, nearest)
  TX_ARG(double, delta_floor)
  TX_ARG(double, svrg_coef)
};
class HALPParamState : public ParamState<HALPParamState> {};
using HALPRun = Run;

class BitCentredSGDOptions : public Options<BitCentredSGDOptions> {
 public:
  explicit BitCentredSGDOptions(double lr) : Options(lr) {}
  TX_ARG(double, mu)
  TX_ARG(int64_t, bits)
  TX_ARG(bool, nearest)
  TX_ARG(double, delta_floor)
};
class BitCentredSGDParamState : public ParamState<BitCentredSGDParamState> {};
using BitCentredSGDRun = Run;

/// What HALP and bit-centred SGD share: the spacing is ||g|| / (mu (2^(bits-1) - 1)).
class BitCentred : public CenterOptimizer {
 protected:
  using CenterOptimizer::CenterOptimizer;
  void start(Member& member) override;
  void commit(Members& members) override;
  void new_center(Members& members, const std::vector<double>& squares) override;

 private:
  void new_codes(Member& member);
  double choose_mu(const Member& member, double norm, const Members& all) const;
};

/// High-accuracy low-precision training: SVRG whose iterates are integers of a few bits,
///   delta = ||g|| / (mu (2^(bits-1) - 1)),
///   z <- Q(z - lr (g_i(c + z) - coef (g_i(c) - g))),   w = c + z,
/// with the full gradient g at the centre c. Q rounds to multiples of delta without bias and
/// saturates. Each centre shrinks the lattice with the gradient: no floor of accuracy is left.
/// Memory: 9 bytes a float32 weight at 8 bits beside weight and gradient, 7 with a bfloat16 anchor.
/// Source: De Sa et al., High-Accuracy Low-Precision Training, arXiv 1803.03383; the automatic
/// choice of mu is this project's.
class HALP : public BitCentred {
 public:
  HALP(std::vector<torch::optim::OptimizerParamGroup> groups, HALPOptions defaults, HALPRun run);
  HALP(std::vector<at::Tensor> params, HALPOptions defaults, HALPRun run)
      : HALP({torch::optim::OptimizerParamGroup(std::move(params))}, std::move(defaults), run) {}

 protected:
  std::unique_ptr<torch::optim::OptimizerParamState> new_state() const override;
};

/// SGD whose iterates are integers around a centre: HALP without the correction, one gradient a
/// step, so that a plain step() after backward() works. `mu` is a number.
/// Source: the bit centring of De Sa et al., arXiv 1803.03383, on SGD; not in the paper.
class BitCentredSGD : public BitCentred {
 public:
  BitCentredSGD(std::vector<torch::optim::OptimizerParamGroup> groups,
                BitCentredSGDOptions defaults, BitCentredSGDRun run);
  BitCentredSGD(std::vector<at::Tensor> params, BitCentredSGDOptions defaults, BitCentredSGDRun run)
      : BitCentredSGD({torch::optim::OptimizerParamGroup(std::move(params))}, std::move(defaults),
                      run) {}

  using CenterOptimizer::recenter;
  /// With Run::running_anchor, after the first centre: the mean of the gradients of the steps since
  /// then takes the place of the full gradient.
  RecenterInfo recenter() { return recenter_with(nullptr); }

 protected:
  std::unique_ptr<torch::optim::OptimizerParamState> new_state() const override;
  Sums gather(const Members& members, const ClosureSource* next) override;
  void keep(Members& members) override;
};

}  // namespace torchext::optim
