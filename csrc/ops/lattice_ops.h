// The ops on lists of lattice tensors, written once for all devices.
//
// A Backend runs the kernels of its device:
//
//   explicit Backend(const Tensors& first);                  // makes the device of the list
//   current void check(op, name, const Tensors& / const Tensor&) const;  // is on that device void
//   step(op, const Lattice&, LatticeRule, const Rate&, const Tensor* key, const Tensors& stats)
//   const; void place(op, const Lattice&, bool commit) const; void encode(op, const Lattice&, int
//   bits) const; void square_sums(op, const std::vector<LatticeTensor>&, double weight_decay,
//   Tensor& out) const;
#pragma once

#include "lattice.h"

namespace torchext::ops {

/// A learning rate: a number, or a tensor of one element on the device.
struct Rate {
  double value = 0.0;
  const Tensor* tensor = nullptr;
};

/// The scalars of a step; bits of `flags`, lowest first: nearest, maximize, nesterov, decoupled,
/// first momentum.
inline LatticeRule read_rule(const char* op, double weight_decay, double coef, double momentum,
                             double dampening, int64_t flags) {
  check_range(op, "flags", flags, 0, 31);
  LatticeRule r{};
  r.weight_decay = weight_decay;
  r.coef = coef;
  r.momentum = momentum;
  r.dampening = dampening;
  r.nearest = (flags & 1) != 0;
  r.maximize = (flags & 2) != 0;
  r.nesterov = (flags & 4) != 0;
  r.decoupled = (flags & 8) != 0;
  r.first_momentum = (flags & 16) != 0;
  return r;
}

/// One row of six float64 per tensor, or none.
inline void check_stats(const char* op, const Tensors& stats, size_t tensors) {
  TX_CHECK(stats.empty() || stats.size() == tensors, op, "stats must have ", tensors,
           " tensors or none, got ", stats.size());
  for (const Tensor& s : stats) {
    check_dtype(op, "stats", s, ScalarType::Double);
    check_shape(op, "stats", s, {kLatticeSums});
    check_contiguous(op, "stats", s);
  }
}

/// Every list but the first must be on the device that the first has chosen.
template <class Backend>
void check_lists(const Backend& backend, const char* op, const Tensors& params, const Tensors& z,
                 const Tensors& center, const Tensors& delta, const Tensors& grad = {},
                 const Tensors& grad_center = {}, const Tensors& full_grad = {},
                 const Tensors& buf = {}, const Tensors& stats = {}) {
  backend.check(op, "params", params);
  backend.check(op, "z", z);
  backend.check(op, "center", center);
  backend.check(op, "delta", delta);
  backend.check(op, "grad", grad);
  backend.check(op, "grad_center", grad_center);
  backend.check(op, "full_grad", full_grad);
  backend.check(op, "buf", buf);
  backend.check(op, "stats", stats);
}

/// The boxed functions of the steps; Lr is double or const Tensor&.
template <class Backend, class Lr>
struct LatticeSteps {
  static void halp(Tensors params, Tensors z, Tensors center, Tensors delta, Tensors grad,
                   Tensors grad_center, Tensors full_grad, Tensors buf, Tensors stats, Lr lr,
                   double weight_decay, double coef, double momentum, double dampening,
                   int64_t bits, int64_t flags, const Tensor& key, std::vector<int64_t> streams) {
    constexpr const char* op = "foreach_halp_step_";
    LatticeRule rule = read_rule(op, weight_decay, coef, momentum, dampening, flags);
    rule.lattice = true;
    check_key(op, key);
    const Backend backend(params);
    check_lists(backend, op, params, z, center, delta, grad, grad_center, full_grad, buf, stats);
    backend.check(op, "key", key);
    Lattice lattice(op, params, z);
    rule.bits = lattice.check_bits(bits);
    lattice.set_center(center, true);
    lattice.set_delta(delta, false);
    lattice.set_gradients(grad, grad_center, full_grad);
    lattice.set_momentum(buf);
    lattice.set_streams(streams);
    check_stats(op, stats, params.size());
    backend.step(op, lattice, rule, rate(backend, op, lr), &key, stats);
    lattice.write_back();
  }

  static void svrg(Tensors params, Tensors z, Tensors center, Tensors grad, Tensors grad_center,
                   Tensors full_grad, Tensors buf, Tensors stats, Lr lr, double weight_decay,
                   double coef, double momentum, double dampening, int64_t flags) {
    constexpr const char* op = "foreach_svrg_step_";
    const LatticeRule rule = read_rule(op, weight_decay, coef, momentum, dampening, flags);
    TX_CHECK(!rule.nearest, op, "flags must not ask for nearest rounding, got ", flags);
    const Backend backend(params);
    check_lists(backend, op, params, z, center, {}, grad, grad_center, full_grad, buf, stats);
    Lattice lattice(op, params, z);
    lattice.check_real();
    lattice.set_center(center, false);
    lattice.set_gradients(grad, grad_center, full_grad);
    lattice.set_momentum(buf);
    check_stats(op, stats, params.size());
    backend.step(op, lattice, rule, rate(backend, op, lr), nullptr, stats);
    lattice.write_back();
  }

 private:
  static Rate rate(const Backend&, const char*, double lr) { return {lr, nullptr}; }
  static Rate rate(const Backend& backend, const char* op, const Tensor& lr) {
    TX_CHECK(lr.scalar_type() == ScalarType::Float || lr.scalar_type() == ScalarType::Double, op,
             "lr must be float32 or float64, got ", dtype_name(lr.scalar_type()));
    TX_CHECK(lr.numel() == 1, op, "lr must have one element, got ", lr.numel());
    backend.check(op, "lr", lr);
    return {0.0, &lr};
  }
};

/// The boxed functions of the ops, and their registration.
template <class Backend>
struct LatticeOps {
  static void materialize(Tensors params, Tensors z, Tensors center, Tensors delta) {
    place("foreach_halp_materialize_", false, params, z, center, delta);
  }

  static void commit(Tensors params, Tensors z, Tensors center, Tensors delta) {
    place("foreach_halp_commit_", true, params, z, center, delta);
  }

  static void encode(Tensors params, Tensors z, Tensors delta, int64_t bits) {
    constexpr const char* op = "foreach_halp_encode_";
    const Backend backend(params);
    check_lists(backend, op, params, z, {}, delta);
    Lattice lattice(op, params, z);
    const int width = lattice.check_bits(bits);
    lattice.set_delta(delta, false);
    backend.encode(op, lattice, width);
    lattice.write_back();
  }

  static Tensor square_sums(Tensors x, Tensors center, double weight_decay) {
    constexpr const char* op = "_foreach_square_sums";
    TX_CHECK(!x.empty(), op, "x must have at least one tensor, got none");
    TX_CHECK(center.empty() || center.size() == x.size(), op, "center must have ", x.size(),
             " tensors or none, got ", center.size());
    const Backend backend(x);
    backend.check(op, "x", x);
    backend.check(op, "center", center);
    Tensors kept;
    std::vector<LatticeTensor> tensors;
    for (size_t i = 0; i < x.size(); ++i) {
      kept.push_back(torch::stable::contiguous(x[i]));
      LatticeTensor a{};
      a.n = x[i].numel();
      a.full_number = number_of(op, "x", x[i]);
      a.full_grad = kept.back().const_data_ptr();
      a.number = a.full_number == Number::f64 ? Number::f64 : Number::f32;
      if (!center.empty()) {
        const Tensor& c = center[i];
        a.number = number_of(op, "center", c) == Number::f64 ? Number::f64 : Number::f32;
        check_dtype(op, "center", c,
                    a.number == Number::f64 ? ScalarType::Double : ScalarType::Float);
        check_contiguous(op, "center", c);
        TX_CHECK(c.numel() == a.n, op, "center must have ", a.n, " elements, got ", c.numel());
        a.center = c.mutable_data_ptr();
      }
      tensors.push_back(a);
    }
    Tensor out =
        torch::stable::new_zeros(x[0], {static_cast<int64_t>(x.size())}, ScalarType::Double);
    backend.square_sums(op, tensors, weight_decay, out);
    return out;
  }

  template <class Library>
  static void define(Library& m) {
    using Numbers = LatticeSteps<Backend, double>;
    using OnDevice = LatticeSteps<Backend, const Tensor&>;
    m.impl("_foreach_square_sums", TORCH_BOX(&square_sums));
    m.impl("foreach_halp_commit_", TORCH_BOX(&commit));
    m.impl("foreach_halp_encode_", TORCH_BOX(&encode));
    m.impl("foreach_halp_materialize_", TORCH_BOX(&materialize));
    m.impl("foreach_halp_step_", TORCH_BOX(&Numbers::halp));
    m.impl("foreach_halp_step_.lr_tensor", TORCH_BOX(&OnDevice::halp));
    m.impl("foreach_svrg_step_", TORCH_BOX(&Numbers::svrg));
    m.impl("foreach_svrg_step_.lr_tensor", TORCH_BOX(&OnDevice::svrg));
  }

 private:
  static void place(const char* op, bool commit, const Tensors& params, const Tensors& z,
                    const Tensors& center, const Tensors& delta) {
    const Backend backend(params);
    check_lists(backend, op, params, z, center, delta);
    Lattice lattice(op, params, z);
    lattice.set_center(center, !commit);
    lattice.set_delta(delta, true);
    backend.place(op, lattice, commit);
    lattice.write_back();
  }
};

}  // namespace torchext::ops
