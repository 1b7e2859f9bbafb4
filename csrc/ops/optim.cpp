// Optimizer steps over lists of tensors: one call per step, dtype and device.
#include <atomic>

#include "lattice.h"

namespace torchext::ops {
namespace {

/// Bits of the argument `flags`, lowest first.
enum Flag : int64_t { kNearest = 1, kMaximize = 2, kNesterov = 4, kDecoupled = 8, kFirst = 16 };
constexpr int64_t kAllFlags = 31;
LatticeRule read_rule(const char* op, double lr, double weight_decay, double coef, double momentum,
                      double dampening, int64_t flags) {
  check_range(op, "flags", flags, 0, kAllFlags);
  LatticeRule r{};
  r.lr = lr;
  r.weight_decay = weight_decay;
  r.coef = coef;
  r.momentum = momentum;
  r.dampening = dampening;
  r.nearest = (flags & kNearest) != 0;
  r.maximize = (flags & kMaximize) != 0;
  r.nesterov = (flags & kNesterov) != 0;
  r.decoupled = (flags & kDecoupled) != 0;
  r.first_momentum = (flags & kFirst) != 0;
  return r;
}

void take_step(Lattice& lattice, const LatticeRule& rule, Statistics& statistics) {
  const auto step = cpu::lattice_kernels().step;
  lattice.run([&](size_t i, const LatticeTensor& a, int64_t begin, int64_t end) {
    step(rule, a, begin, end, statistics.of(i));
  });
  statistics.add();
}

void halp_step(Tensors params, Tensors z, Tensors center, Tensors delta, Tensors grad,
               Tensors grad_center, Tensors full_grad, Tensors buf, Tensors stats, double lr,
               double weight_decay, double coef, double momentum, double dampening, int64_t bits,
               int64_t flags, const Tensor& key, std::vector<int64_t> streams) {
  constexpr const char* op = "foreach_halp_step_";
  LatticeRule rule = read_rule(op, lr, weight_decay, coef, momentum, dampening, flags);
  rule.lattice = true;
  rule.key = read_key(op, key);
  Lattice lattice(op, params, z);
  rule.bits = lattice.check_bits(bits);
  lattice.set_center(center, true);
  lattice.set_delta(delta, false);
  lattice.set_gradients(grad, grad_center, full_grad);
  lattice.set_momentum(buf);
  lattice.set_streams(streams);
  Statistics statistics(op, stats, lattice.tensors());
  take_step(lattice, rule, statistics);
}

void svrg_step(Tensors params, Tensors z, Tensors center, Tensors grad, Tensors grad_center,
               Tensors full_grad, Tensors buf, Tensors stats, double lr, double weight_decay,
               double coef, double momentum, double dampening, int64_t flags) {
  constexpr const char* op = "foreach_svrg_step_";
  const LatticeRule rule = read_rule(op, lr, weight_decay, coef, momentum, dampening, flags);
  TX_CHECK(!rule.nearest, op, "flags must not ask for nearest rounding, got ", flags);
  Lattice lattice(op, params, z);
  lattice.check_real();
  lattice.set_center(center, false);
  lattice.set_gradients(grad, grad_center, full_grad);
  lattice.set_momentum(buf);
  Statistics statistics(op, stats, lattice.tensors());
  take_step(lattice, rule, statistics);
}

void materialize(Tensors params, Tensors z, Tensors center, Tensors delta) {
  Lattice lattice("foreach_halp_materialize_", params, z);
  lattice.set_center(center, true);
  lattice.set_delta(delta, true);
  const auto kernel = cpu::lattice_kernels().materialize;
  lattice.run([&](size_t, const LatticeTensor& a, int64_t b, int64_t e) { kernel(a, b, e); });
}

void commit(Tensors params, Tensors z, Tensors center, Tensors delta) {
  Lattice lattice("foreach_halp_commit_", params, z);
  lattice.set_center(center, false);
  lattice.set_delta(delta, true);
  const auto kernel = cpu::lattice_kernels().commit;
  lattice.run([&](size_t, const LatticeTensor& a, int64_t b, int64_t e) { kernel(a, b, e); });
}

void encode(Tensors params, Tensors z, Tensors delta, int64_t bits) {
  constexpr const char* op = "foreach_halp_encode_";
  Lattice lattice(op, params, z);
  const int width = lattice.check_bits(bits);
  lattice.set_delta(delta, false);
  for (const LatticeTensor& a : lattice.tensors())
    TX_CHECK(a.delta >= 0x1p-126 && a.delta <= 0x1.fffffep127, op,
             "delta must be positive and finite, got ", a.delta);
  const auto kernel = cpu::lattice_kernels().encode;
  std::atomic<bool> nan{false};
  lattice.run([&](size_t, const LatticeTensor& a, int64_t b, int64_t e) {
    if (kernel(a, width, b, e)) nan.store(true, std::memory_order_relaxed);
  });
  TX_CHECK(!nan.load(), op, "params must not hold NaN, which has no code, got nan");
}

Tensor square_sums(Tensors x, Tensors center, double weight_decay) {
  constexpr const char* op = "_foreach_square_sums";
  TX_CHECK(!x.empty(), op, "x must have at least one tensor, got none");
  TX_CHECK(center.empty() || center.size() == x.size(), op, "center must have ", x.size(),
           " tensors or none, got ", center.size());
  const auto count = static_cast<int64_t>(x.size());
  Tensor out = torch::stable::new_empty(x[0], {count}, ScalarType::Double);
  for (size_t i = 0; i < x.size(); ++i) {
    const Tensor values = torch::stable::contiguous(x[i]);
    LatticeTensor a{};
    a.n = values.numel();
    a.full_number = number_of(op, "x", values);
    a.full_grad = values.const_data_ptr();
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
    const int64_t chunks = lattice_chunks(a.n);
    const auto sums = std::make_unique<double[]>(static_cast<size_t>(chunks));
    parallel_for(chunks, kLatticeGrain, [&](int64_t b, int64_t e) {
      cpu::square_sums(a, weight_decay, b * kLatticeChunk, std::min(a.n, e * kLatticeChunk),
                       sums.get());
    });
    out.mutable_data_ptr<double>()[i] = tree_sum(chunks, [&](int64_t c) { return sums[c]; });
  }
  return out;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_foreach_square_sums", TORCH_BOX(&torchext::ops::square_sums));
  m.impl("foreach_halp_commit_", TORCH_BOX(&torchext::ops::commit));
  m.impl("foreach_halp_encode_", TORCH_BOX(&torchext::ops::encode));
  m.impl("foreach_halp_materialize_", TORCH_BOX(&torchext::ops::materialize));
  m.impl("foreach_halp_step_", TORCH_BOX(&torchext::ops::halp_step));
  m.impl("foreach_svrg_step_", TORCH_BOX(&torchext::ops::svrg_step));
}
