// Optimizer steps over lists of tensors on the CPU: one call per step and dtype.
#include <atomic>
#include <memory>

#include "kernels/optim/lattice_rule.h"
#include "lattice_ops.h"

namespace torchext::ops {
namespace {

class Cpu {
 public:
  explicit Cpu(const Tensors&) {}

  // The dispatcher has looked at all tensors: none is elsewhere.
  void check(const char*, const char*, const Tensors&) const {}
  void check(const char*, const char*, const Tensor&) const {}

  void step(const char* op, const Lattice& lattice, LatticeRule rule, const Rate& rate,
            const Tensor* key, const Tensors& stats) const {
    rule.lr = rate.tensor != nullptr ? number(*rate.tensor) : rate.value;
    if (key != nullptr) rule.key = read_key(op, *key);
    const std::vector<LatticeTensor> tensors = with_spacings(lattice);
    std::vector<std::unique_ptr<double[]>> sums;  // of each chunk; zeros
    for (size_t i = 0; i < stats.size(); ++i)
      sums.push_back(std::make_unique<double[]>(
          static_cast<size_t>(lattice_chunks(tensors[i].n) * kLatticeSums)));
    const auto kernel = cpu::lattice_kernels().step;
    run(tensors, [&](size_t i, int64_t begin, int64_t end) {
      kernel(rule, tensors[i], begin, end, sums.empty() ? nullptr : sums[i].get());
    });
    for (size_t i = 0; i < stats.size(); ++i)
      add_lattice_sums(sums[i].get(), lattice_chunks(tensors[i].n),
                       static_cast<double*>(stats[i].mutable_data_ptr()));
  }

  void place(const char*, const Lattice& lattice, bool commit) const {
    const cpu::LatticeKernels& kernels = cpu::lattice_kernels();
    const auto kernel = commit ? kernels.commit : kernels.materialize;
    const std::vector<LatticeTensor> tensors = with_spacings(lattice);
    run(tensors, [&](size_t i, int64_t begin, int64_t end) { kernel(tensors[i], begin, end); });
  }

  void encode(const char* op, const Lattice& lattice, int bits) const {
    const std::vector<LatticeTensor> tensors = with_spacings(lattice);
    for (const LatticeTensor& a : tensors)
      TX_CHECK(is_spacing(a.delta), op, "delta must be positive and finite, got ", a.delta);
    const auto kernel = cpu::lattice_kernels().encode;
    std::atomic<bool> nan{false};
    run(tensors, [&](size_t i, int64_t begin, int64_t end) {
      if (kernel(tensors[i], bits, begin, end)) nan.store(true, std::memory_order_relaxed);
    });
    TX_CHECK(!nan.load(), op, "params must not hold NaN, which has no code, got nan");
  }

  void square_sums(const char*, const std::vector<LatticeTensor>& tensors, double weight_decay,
                   Tensor& out) const {
    for (size_t i = 0; i < tensors.size(); ++i) {
      const LatticeTensor& a = tensors[i];
      const int64_t chunks = lattice_chunks(a.n);
      const auto sums = std::make_unique<double[]>(static_cast<size_t>(chunks));
      parallel_for(chunks, kLatticeGrain, [&](int64_t begin, int64_t end) {
        cpu::square_sums(a, weight_decay, begin * kLatticeChunk, std::min(a.n, end * kLatticeChunk),
                         sums.get());
      });
      out.mutable_data_ptr<double>()[i] = tree_sum(chunks, [&](int64_t c) { return sums[c]; });
    }
  }

 private:
  static double number(const Tensor& t) {
    return t.scalar_type() == ScalarType::Double ? *t.const_data_ptr<double>()
                                                 : static_cast<double>(*t.const_data_ptr<float>());
  }

  static std::vector<LatticeTensor> with_spacings(const Lattice& lattice) {
    std::vector<LatticeTensor> tensors = lattice.tensors();
    for (size_t i = 0; i < tensors.size(); ++i) {
      const void* at = lattice.spacings()[i];
      if (at == nullptr) continue;
      tensors[i].delta = lattice.own() == ScalarType::Double
                             ? *static_cast<const double*>(at)
                             : static_cast<double>(*static_cast<const float*>(at));
    }
    return tensors;
  }

  /// Runs body(tensor index, begin, end) over all tensors in chunks of 1024 elements.
  template <class Body>
  static void run(const std::vector<LatticeTensor>& tensors, const Body& body) {
    std::vector<int64_t> sizes;
    for (const LatticeTensor& a : tensors) sizes.push_back(a.n);
    const auto parallel = [](int64_t count, const auto& part) {
      parallel_for(count, kLatticeGrain, part);
    };
    for_lattice_chunks(sizes, parallel, body);
  }
};

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  torchext::ops::LatticeOps<torchext::ops::Cpu>::define(m);
}
