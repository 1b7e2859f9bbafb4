// What all optimizers of the package share: groups, counters, keys, saving and loading.
#pragma once

#include <torchext/optim/options.h>
#include <torchext/optim/state.h>

#include <memory>
#include <vector>

namespace torchext::optim {

/// What rounding did to a parameter since the last centre.
struct Telemetry {
  double delta = 0, radius = 0;  ///< spacing, and largest offset delta (2^(bits-1) - 1)
  double mu = 0;
  double clip_rate = 0;    ///< updates that saturated; above 1e-3 asks for a smaller mu
  double peak = 0;         ///< largest code over the largest possible one
  double noise_ratio = 0;  ///< sqrt(sum (r - t)^2 / sum t^2); high: a larger mu or more bits
  double zero_rate = 0;    ///< updates that left the code; 1: nothing moves
  double grad_norm = 0, loss = 0;  ///< at the centre
  int64_t steps = 0, nonfinite = 0;
};

struct Entry;  // one parameter of a kernel call

/// What a method is made of.
struct Method {
  const char* name;
  bool center;     ///< recenter() is needed
  bool corrected;  ///< gradients at two points
};

/// Base of the optimizers whose weights are a centre plus a spacing times integers. The same seed
/// and data give the same bits as the Python classes of torchext.optim. CPU parameters only.
class LatticeOptimizer : public torch::optim::Optimizer {
 public:
  /// As in torch; the settings are checked, and parameters added in mid-epoch wait for the next
  /// recenter. Throws std::invalid_argument.
  void add_param_group(const torch::optim::OptimizerParamGroup& group);

  /// The model's buffers, restored after the gradients at the centre, so that batch-norm statistics
  /// move once a step, as in a single pass. Not saved.
  void register_buffers(std::vector<at::Tensor> buffers) { buffers_ = std::move(buffers); }

  /// Numbers of every parameter that has codes, in order over all groups; needs Run::telemetry
  /// (mu = kAutoMu implies it). Throws std::runtime_error.
  std::vector<Telemetry> telemetry() const;

  /// State of a parameter, or null before its first use.
  const LatticeState* state_of(const at::Tensor& param) const;

  uint64_t seed() const { return seed_; }
  int64_t global_step() const { return counters_.global_step; }

  /// Settings, states, counters and seed; loading continues to the bit, also in mid-epoch, and
  /// rewrites the parameters. Throws std::invalid_argument, with nothing changed, if another method
  /// or other shapes were saved.
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 protected:
  /// A parameter, its number over all groups (which is its random stream), its settings and state.
  struct Member {
    int64_t number;
    at::Tensor param;
    const Settings* settings;
    LatticeState* state;  // null: none yet

    bool has_codes() const { return state != nullptr && state->has_codes(); }
    bool has_grad() const { return param.grad().defined(); }
  };
  using Members = std::vector<Member>;

  struct Counters {
    int64_t t = 0, epoch = 0, global_step = 0;
    int64_t pick = -1;  // the step whose iterate is the next centre, option random
    bool centered = false, converged = false;
  };

  LatticeOptimizer(Method method, std::vector<torch::optim::OptimizerParamGroup> groups,
                   std::unique_ptr<torch::optim::OptimizerOptions> defaults, Run run);

  virtual std::unique_ptr<torch::optim::OptimizerParamState> new_state() const = 0;

  /// Parameters that train or have state.
  Members members() const;
  Members with_codes() const;
  void make_state(Member& member);
  /// Rounds parameters to their fixed lattice at first use, and when its spacing or bits were
  /// changed.
  void to_lattice();
  /// The tensors of a member, without its gradients.
  static Entry entry_of(const Member& member);

  at::Tensor loss_of(const LossClosure& closure) const;
  /// Members with a gradient, after every check that must come before a weight moves.
  Members ready() const;
  void apply(const Members& members);
  void to_iterate() const;
  bool counts() const;
  /// Word 0 of a draw under the key of this step's sampler.
  uint32_t sampler_word(uint32_t draw) const;

  Method method_;
  Run run_;
  Counters counters_;
  uint64_t seed_;
  std::vector<at::Tensor> buffers_;
  std::vector<at::Tensor> grads_at_center_;  // by number; undefined: none

 private:
  void check_group(const torch::optim::OptimizerParamGroup& group) const;
  Telemetry telemetry_of(const Member& member) const;
};

}  // namespace torchext::optim
