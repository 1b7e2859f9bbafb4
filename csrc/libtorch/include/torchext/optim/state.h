// What an optimizer remembers of one parameter.
#pragma once

#include <torch/optim/optimizer.h>
#include <torch/types.h>

#include <cstdint>

namespace torchext::optim {

/// State of one parameter; tensors that a method or option does not have are undefined. Arithmetic,
/// and so the centre, is float32, or float64 for float64 parameters.
struct LatticeState {
  at::Tensor center;     ///< full precision
  at::Tensor z;          ///< codes: uint8 (two a byte), int8, int16, float32; SVRG: offsets
  at::Tensor delta;      ///< spacing, one element
  at::Tensor full_grad;  ///< full gradient at the centre
  at::Tensor momentum_buffer;
  at::Tensor z_center;                 ///< LP-SVRG: codes of the centre
  at::Tensor z_kept, z_mean;           ///< options random and mean, within an epoch
  at::Tensor grad_mean;                ///< running anchor: mean gradient since the last centre
  at::Tensor stats;                    ///< six float64: see torchext::optim::Telemetry
  int64_t bits = 0;                    ///< of z; 0: none, or real offsets
  double mu = 0.0;                     ///< in use; 0: none yet
  double grad_norm = 0.0, loss = 0.0;  ///< at the centre
  double grid_delta = 0.0;             ///< the setting that made the fixed lattice; 0: none yet

  bool has_codes() const { return z.defined(); }
  void serialize(torch::serialize::InputArchive& archive);
  void serialize(torch::serialize::OutputArchive& archive) const;
  friend bool operator==(const LatticeState& a, const LatticeState& b);
};

/// Base of the states that torch::optim::Optimizer holds.
template <class Derived>
class ParamState : public torch::optim::OptimizerCloneableParamState<Derived>, public LatticeState {
 public:
  void serialize(torch::serialize::InputArchive& archive) override {
    LatticeState::serialize(archive);
  }
  void serialize(torch::serialize::OutputArchive& archive) const override {
    LatticeState::serialize(archive);
  }
};

}  // namespace torchext::optim
