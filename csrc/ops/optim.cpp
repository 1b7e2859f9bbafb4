// Optimizer steps over lists of tensors: one call per step, dtype and device.
#include <algorithm>
#include <atomic>
#include <memory>

#include "kernels/optim/lattice.h"
#include "kernels/tree_sum.h"
#include "stable.h"

namespace torchext::ops {
namespace {

using Tensors = std::vector<Tensor>;

/// Bits of the argument `flags`, lowest first.
enum Flag : int64_t { kNearest = 1, kMaximize = 2, kNesterov = 4, kDecoupled = 8, kFirst = 16 };
constexpr int64_t kAllFlags = 31;
constexpr int64_t kGrain = 16;  // chunks of 1024 elements per task

Number number_of(const char* op, const char* name, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Number::f32;
    case ScalarType::Double: return Number::f64;
    case ScalarType::BFloat16: return Number::bf16;
    case ScalarType::Half: return Number::f16;
    default: break;
  }
  fail(op, name, " must be float32, float64, bfloat16 or float16, got ",
       dtype_name(t.scalar_type()));
}

CodeStore store_of(const char* op, const Tensor& z) {
  switch (z.scalar_type()) {
    case ScalarType::Byte: return CodeStore::int4;
    case ScalarType::Char: return CodeStore::int8;
    case ScalarType::Short: return CodeStore::int16;
    case ScalarType::Float: return CodeStore::f32;
    case ScalarType::Double: return CodeStore::f64;
    default: break;
  }
  fail(op, "z must be uint8 (two codes a byte), int8, int16 or float, got ",
       dtype_name(z.scalar_type()));
}

/// Largest bits whose codes a store holds.
int store_bits(CodeStore store) {
  switch (store) {
    case CodeStore::int4: return 4;
    case CodeStore::int8: return 8;
    case CodeStore::int16: return 16;
    default: return 24;
  }
}

/// A list of tensors as the kernels see them, and the copies that strides make necessary.
class Lattice {
 public:
  Lattice(const char* op, const Tensors& params, const Tensors& z) : op_(op), params_(params) {
    check_count("z", z, false);
    tensors_.resize(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      LatticeTensor& a = tensors_[i];
      a.n = params[i].numel();
      a.number = number_of(op, "params", params[i]);
      TX_CHECK(a.number == tensors_[0].number, op, "params must have one dtype, got ",
               dtype_name(params[0].scalar_type()), " and ", dtype_name(params[i].scalar_type()));
      a.store = store_of(op, z[i]);
      check_contiguous(op, "z", z[i]);
      const int64_t want = a.store == CodeStore::int4 ? code_bytes(a.n, a.store) : a.n;
      TX_CHECK(z[i].numel() == want, op, "z must have ", want, " elements for ", a.n,
               " weights, got ", z[i].numel());
      a.q = z[i].mutable_data_ptr();
      a.delta = 1.0;
      dense_.push_back(write_param(params[i]));
      a.param = dense_.back().mutable_data_ptr();
    }
  }

  /// The arithmetic: double for double weights, else float.
  ScalarType own() const {
    return !tensors_.empty() && tensors_[0].number == Number::f64 ? ScalarType::Double
                                                                  : ScalarType::Float;
  }

  void set_center(const Tensors& list, bool optional) {
    each("center", list, optional, [&](LatticeTensor& a, const Tensor& t) {
      check_same(a, "center", t, own());
      a.center = t.mutable_data_ptr();
    });
  }
  void set_delta(const Tensors& list, bool optional) {
    each("delta", list, optional, [&](LatticeTensor& a, const Tensor& t) {
      check_dtype(op_, "delta", t, own());
      TX_CHECK(t.numel() == 1, op_, "delta must have one element a tensor, got ", t.numel());
      a.delta = own() == ScalarType::Double ? *t.const_data_ptr<double>()
                                            : static_cast<double>(*t.const_data_ptr<float>());
    });
  }
  void set_momentum(const Tensors& list) {
    each("buf", list, true, [&](LatticeTensor& a, const Tensor& t) {
      check_same(a, "buf", t, own());
      a.momentum = t.mutable_data_ptr();
    });
  }
  void set_gradients(const Tensors& grad, const Tensors& grad_center, const Tensors& full_grad) {
    each("grad", grad, false,
         [&](LatticeTensor& a, const Tensor& t) { a.grad = gradient(a, "grad", t); });
    each("grad_center", grad_center, true,
         [&](LatticeTensor& a, const Tensor& t) { a.grad_center = gradient(a, "grad_center", t); });
    each("full_grad", full_grad, true, [&](LatticeTensor& a, const Tensor& t) {
      a.full_number = number_of(op_, "full_grad", t);
      check_same(a, "full_grad", t, t.scalar_type());
      a.full_grad = t.const_data_ptr();
    });
    TX_CHECK(grad_center.empty() || !full_grad.empty(), op_,
             "full_grad must be given with grad_center, got an empty list");
  }
  void set_streams(const std::vector<int64_t>& streams) {
    TX_CHECK(streams.size() == params_.size(), op_, "streams must have ", params_.size(),
             " entries, got ", streams.size());
    for (size_t i = 0; i < streams.size(); ++i) tensors_[i].stream = to_stream(op_, streams[i]);
  }
  int check_bits(int64_t bits) const {
    for (const LatticeTensor& a : tensors_) check_range(op_, "bits", bits, 2, store_bits(a.store));
    return static_cast<int>(check_range(op_, "bits", bits, 2, 24));
  }
  void check_real() const {
    const CodeStore want = own() == ScalarType::Double ? CodeStore::f64 : CodeStore::f32;
    for (const LatticeTensor& a : tensors_)
      TX_CHECK(a.store == want, op_, "z must be ", dtype_name(own()), ", got another dtype");
  }

  /// Runs body(tensor index, tensor, begin, end) over all tensors in chunks of 1024 elements.
  template <class Body>
  void run(const Body& body) {
    for (const LatticeTensor& a : tensors_) first_chunk_.push_back(first_chunk_.back() + chunks(a));
    parallel_for(first_chunk_.back(), kGrain, [&](int64_t begin, int64_t end) {
      auto next = std::upper_bound(first_chunk_.begin(), first_chunk_.end(), begin);
      while (begin < end) {
        const auto i = static_cast<size_t>(next - first_chunk_.begin()) - 1;
        const int64_t stop = std::min(end, *next), first = first_chunk_[i];
        const LatticeTensor& a = tensors_[i];
        if (stop > begin)
          body(i, a, (begin - first) * kLatticeChunk,
               std::min(a.n, (stop - first) * kLatticeChunk));
        begin = stop;
        ++next;
      }
    });
    for (size_t i = 0; i < params_.size(); ++i) {
      if (params_[i].is_contiguous()) continue;
      Tensor to = params_[i];
      torch::stable::copy_(to, dense_[i]);
    }
  }

  static int64_t chunks(const LatticeTensor& a) {
    return (a.n + kLatticeChunk - 1) / kLatticeChunk;
  }
  std::vector<LatticeTensor>& tensors() { return tensors_; }

 private:
  void check_count(const char* name, const Tensors& list, bool optional) const {
    TX_CHECK(list.size() == params_.size() || (optional && list.empty()), op_, name, " must have ",
             params_.size(), optional ? " tensors or none, got " : " tensors, got ", list.size());
  }

  template <class Set>
  void each(const char* name, const Tensors& list, bool optional, const Set& set) {
    check_count(name, list, optional);
    for (size_t i = 0; i < list.size(); ++i) set(tensors_[i], list[i]);
  }

  void check_same(const LatticeTensor& a, const char* name, const Tensor& t, ScalarType type) {
    check_dtype(op_, name, t, type);
    check_contiguous(op_, name, t);
    TX_CHECK(t.numel() == a.n, op_, name, " must have ", a.n, " elements, got ", t.numel());
  }

  /// Gradients come from autograd: any strides, the dtype of the weights.
  const void* gradient(const LatticeTensor& a, const char* name, const Tensor& t) {
    check_dtype(op_, name, t, params_[0].scalar_type());
    TX_CHECK(t.numel() == a.n, op_, name, " must have ", a.n, " elements, got ", t.numel());
    kept_.push_back(torch::stable::contiguous(t));
    return kept_.back().const_data_ptr();
  }

  Tensor write_param(const Tensor& p) const {
    if (p.is_contiguous()) return p;
    for (int64_t d = 0; d < p.dim(); ++d)
      TX_CHECK(p.size(d) <= 1 || p.stride(d) != 0, op_,
               "params must not overlap in memory, got an expanded tensor");
    return torch::stable::contiguous(p);
  }

  const char* op_;
  const Tensors& params_;
  std::vector<LatticeTensor> tensors_;
  Tensors dense_, kept_;
  std::vector<int64_t> first_chunk_ = {0};
};

/// Adds the sums of the chunks to stats, one row of six float64 per tensor.
class Statistics {
 public:
  Statistics(const char* op, const Tensors& stats, const std::vector<LatticeTensor>& tensors)
      : stats_(stats), tensors_(tensors) {
    TX_CHECK(stats.empty() || stats.size() == tensors.size(), op, "stats must have ",
             tensors.size(), " tensors or none, got ", stats.size());
    for (size_t i = 0; i < stats.size(); ++i) {
      check_dtype(op, "stats", stats[i], ScalarType::Double);
      check_shape(op, "stats", stats[i], {kLatticeSums});
      check_contiguous(op, "stats", stats[i]);
      const auto size = static_cast<size_t>(Lattice::chunks(tensors[i]) * kLatticeSums);
      sums_.push_back(std::make_unique<double[]>(size));
    }
  }
  double* of(size_t i) const { return sums_.empty() ? nullptr : sums_[i].get(); }

  void add() {
    for (size_t i = 0; i < sums_.size(); ++i) {
      const int64_t chunks = Lattice::chunks(tensors_[i]);
      if (chunks == 0) continue;
      const double* sums = sums_[i].get();
      auto* to = static_cast<double*>(stats_[i].mutable_data_ptr());
      for (int s = 0; s < kLatticeSums; ++s) {
        if (s == 4) continue;
        to[s] += tree_sum(chunks, [&](int64_t c) { return sums[c * kLatticeSums + s]; });
      }
      to[4] = 0.0;
      for (int64_t c = 0; c < chunks; ++c) to[4] = std::max(to[4], sums[c * kLatticeSums + 4]);
    }
  }

 private:
  const Tensors& stats_;
  const std::vector<LatticeTensor>& tensors_;
  std::vector<std::unique_ptr<double[]>> sums_;
};

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
    const int64_t chunks = Lattice::chunks(a);
    const auto sums = std::make_unique<double[]>(static_cast<size_t>(chunks));
    parallel_for(chunks, kGrain, [&](int64_t b, int64_t e) {
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
