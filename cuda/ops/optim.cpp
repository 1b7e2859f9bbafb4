// Optimizer steps over lists of tensors on CUDA: a launch for every 32 tensors.
#include "device.h"
#include "kernels/lattice.h"
#include "ops/lattice_ops.h"

namespace torchext::ops {
namespace {

class Cuda {
 public:
  explicit Cuda(const Tensors& first) {
    if (!first.empty()) device_.emplace(first[0], "the first tensor");
  }

  void check(const char* op, const char* name, const Tensors& list) const {
    for (const Tensor& t : list) check(op, name, t);
  }
  void check(const char* op, const char* name, const Tensor& t) const {
    if (device_) device_->check(op, name, t);
  }

  void step(const char* op, const Lattice& lattice, LatticeRule rule, const Rate& rate,
            const Tensor* key, const Tensors& stats) const {
    std::vector<cuda::LatticeItem> items = items_of(lattice.tensors(), &lattice.spacings());
    if (items.empty()) return;
    rule.lr = rate.value;
    cuda::LatticeStepArgs args{rule, nullptr, nullptr, false, nullptr};
    if (key != nullptr) args.key = static_cast<const uint64_t*>(key->const_data_ptr());
    if (rate.tensor != nullptr) {
      args.lr = rate.tensor->const_data_ptr();
      args.lr_is_double = rate.tensor->scalar_type() == ScalarType::Double;
    }
    Tensor sums;
    if (!stats.empty()) {
      for (size_t i = 0; i < stats.size(); ++i)
        items[i].result = static_cast<double*>(stats[i].mutable_data_ptr());
      sums = doubles(stats[0], kLatticeSums * chunks_of(items));
      args.sums = sums.mutable_data_ptr<double>();
    }
    check_launch(op, cuda::launch_lattice_step(args, items.data(), size(items), stream()));
  }

  void place(const char* op, const Lattice& lattice, bool commit) const {
    const auto items = items_of(lattice.tensors(), &lattice.spacings());
    if (items.empty()) return;
    check_launch(op, cuda::launch_lattice_place(commit, items.data(), size(items), stream()));
  }

  void encode(const char* op, const Lattice& lattice, int bits) const {
    const auto items = items_of(lattice.tensors(), &lattice.spacings());
    if (items.empty()) return;
    check_launch(op, cuda::launch_lattice_encode(bits, items.data(), size(items), stream()));
  }

  void square_sums(const char* op, const std::vector<LatticeTensor>& tensors, double weight_decay,
                   Tensor& out) const {
    std::vector<cuda::LatticeItem> items = items_of(tensors, nullptr);
    for (size_t i = 0; i < items.size(); ++i) items[i].result = out.mutable_data_ptr<double>() + i;
    Tensor sums = doubles(out, chunks_of(items));
    check_launch(op, cuda::launch_square_sums(weight_decay, sums.mutable_data_ptr<double>(),
                                              items.data(), size(items), stream()));
  }

 private:
  static std::vector<cuda::LatticeItem> items_of(const std::vector<LatticeTensor>& tensors,
                                                 const std::vector<const void*>* spacings) {
    std::vector<cuda::LatticeItem> items;
    for (size_t i = 0; i < tensors.size(); ++i)
      items.push_back({tensors[i], spacings != nullptr ? (*spacings)[i] : nullptr, nullptr});
    return items;
  }
  static int64_t size(const std::vector<cuda::LatticeItem>& items) {
    return static_cast<int64_t>(items.size());
  }
  static int64_t chunks_of(const std::vector<cuda::LatticeItem>& items) {
    return cuda::lattice_chunks_of(items.data(), size(items));
  }
  static Tensor doubles(const Tensor& like, int64_t count) {
    return torch::stable::new_empty(like, {count}, ScalarType::Double);
  }
  cudaStream_t stream() const { return device_->stream(); }

  std::optional<Device> device_;
};

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) { torchext::ops::LatticeOps<torchext::ops::Cuda>::define(m); }
