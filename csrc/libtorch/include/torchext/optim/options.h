// Settings of the optimizers: per param group (XOptions) and for the whole optimizer (Run).
#pragma once

#include <torch/optim/optimizer.h>
#include <torch/types.h>

#include <cstdint>
#include <optional>

namespace torchext::optim {

constexpr double kAutoMu = -1.0;  ///< mu: adapted to clipping and noise after each epoch
constexpr double kAbsmax = -1.0;  ///< delta: max|w| / (2^(bits-1) - 1) of each tensor at first use

/// What a param group may set; the options of a method have setters for those that it reads.
struct Settings {
  double lr = 0.0;
  double weight_decay = 0.0;  ///< on the true weights
  double momentum = 0.0, dampening = 0.0;
  bool decoupled_weight_decay = false;  ///< added after the momentum
  bool nesterov = false, maximize = false;
  double svrg_coef = 1.0;     ///< factor of the correction, 0 to 1
  int64_t bits = 8;           ///< 2 to 16; to 24 where the codes are kept as float
  bool nearest = false;       ///< rounding for comparison: it stalls
  double mu = 1.0;            ///< half-width of the box: ||full gradient|| / mu
  double mu0 = -1.0;          ///< start of the automatic choice; < 0: 10 / (lr T)
  double delta_floor = 1e-3;  ///< least share of a tensor in the norm of the gradient
  double delta = kAbsmax;     ///< spacing of a fixed lattice

  void serialize(torch::serialize::InputArchive& archive);
  void serialize(torch::serialize::OutputArchive& archive) const;
  friend bool operator==(const Settings&, const Settings&) = default;
};

/// What every options class is to the base of the optimizers.
class HasSettings {
 public:
  virtual ~HasSettings() = default;
  Settings& settings() { return settings_; }
  const Settings& settings() const { return settings_; }

 protected:
  Settings settings_;
};

/// As TORCH_ARG; the setter returns the class of the options, so that calls chain also where the
/// setting is declared in a base.
#define TX_ARG(type, name)                                           \
  Self& name(type new_##name) {                                      \
    this->settings_.name = new_##name;                               \
    return static_cast<Self&>(*this);                                \
  }                                                                  \
  const type& name() const noexcept { return this->settings_.name; } \
  type& name() noexcept { return this->settings_.name; }

/// Base of the options: the settings that all methods share.
template <class Derived>
class Options : public torch::optim::OptimizerCloneableOptions<Derived>, public HasSettings {
 public:
  using Self = Derived;
  explicit Options(double lr) { settings_.lr = lr; }
  TX_ARG(double, lr)
  TX_ARG(double, weight_decay)
  TX_ARG(double, momentum)
  TX_ARG(double, dampening)
  TX_ARG(bool, decoupled_weight_decay)
  TX_ARG(bool, nesterov)
  TX_ARG(bool, maximize)

  double get_lr() const override { return settings_.lr; }
  void set_lr(const double lr) override { settings_.lr = lr; }
  void serialize(torch::serialize::InputArchive& archive) override { settings_.serialize(archive); }
  void serialize(torch::serialize::OutputArchive& archive) const override {
    settings_.serialize(archive);
  }
  friend bool operator==(const Derived& a, const Derived& b) {
    return a.settings() == b.settings();
  }
};

enum class Scope { kTensor, kGlobal };            ///< one spacing per tensor, or for the model
enum class Option { kLast = 1, kRandom, kMean };  ///< the next centre, of the iterates so far

/// What holds for all param groups. Not saved with the optimizer, as it is part of the program.
struct Run {
  int64_t T = 1;  ///< steps from one centre to the next
  Scope scope = Scope::kTensor;
  bool codes = true;  ///< pack the integers; false keeps them as float32
  Option option = Option::kLast;
  bool loopless = false;                        ///< re-centre by a coin of 1/T before each step
  std::optional<uint64_t> seed = std::nullopt;  ///< none: drawn from torch's generator
  bool telemetry = false;                       ///< count saturation and rounding noise
  bool error_if_nonfinite = false;  ///< raise before a weight moves, instead of skipping elements
  bool reset_momentum = false;      ///< forget the momentum at each centre
  bool preserve_rng = true;         ///< both passes of a step draw the same random numbers
  std::optional<at::ScalarType> anchor_dtype = std::nullopt;  ///< of the full gradient: kBFloat16
  bool running_anchor = false;  ///< bit-centred SGD: later centres need no pass over the data
};

}  // namespace torchext::optim
