#include "lattice.h"

#include <ATen/Parallel.h>

#include <memory>

#include "fail.h"
#include "kernels/optim/lattice_lists.h"

namespace torchext::optim {
namespace {

Number number_of(const at::Tensor& t) {
  switch (t.scalar_type()) {
    case at::kFloat: return Number::f32;
    case at::kDouble: return Number::f64;
    case at::kBFloat16: return Number::bf16;
    case at::kHalf: return Number::f16;
    default: refuse("parameters must be float32, float64, bfloat16 or float16, got ", t.dtype());
  }
}

CodeStore store_of(const at::Tensor& z) {
  switch (z.scalar_type()) {
    case at::kByte: return CodeStore::int4;
    case at::kChar: return CodeStore::int8;
    case at::kShort: return CodeStore::int16;
    case at::kFloat: return CodeStore::f32;
    default: return CodeStore::f64;
  }
}

void* data_or_null(const at::Tensor& t) { return t.defined() ? t.data_ptr() : nullptr; }

template <class Part>
void in_parallel(int64_t count, const Part& part) {
  at::parallel_for(0, count, kLatticeGrain, part);
}

/// The entries as the kernels see them, and the copies that strides make necessary.
class Views {
 public:
  explicit Views(const std::vector<Entry>& entries) : entries_(entries) {
    for (const Entry& e : entries) {
      LatticeTensor a{};
      a.n = e.param.numel();
      a.number = number_of(e.param);
      a.store = store_of(e.z);
      params_.push_back(keep(e.param));
      a.param = params_.back().data_ptr();
      a.q = e.z.data_ptr();
      a.center = data_or_null(e.center);
      a.delta = e.delta.defined() ? e.delta.item<double>() : 1.0;
      a.grad = gradient(e.grad);
      a.grad_center = gradient(e.grad_center);
      a.full_grad = data_or_null(e.full_grad);
      if (e.full_grad.defined()) a.full_number = number_of(e.full_grad);
      a.momentum = data_or_null(e.momentum);
      a.stream = e.stream;
      tensors_.push_back(a);
      sizes_.push_back(a.n);
    }
  }

  /// Runs body(index, tensor, begin, end) over all chunks and writes strided parameters back.
  template <class Body>
  void run(const Body& body) const {
    for_lattice_chunks(
        sizes_, [](int64_t count, const auto& part) { in_parallel(count, part); },
        [&](size_t i, int64_t begin, int64_t end) { body(i, tensors_[i], begin, end); });
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < entries_.size(); ++i) {
      const at::Tensor& param = entries_[i].param;
      if (param.is_contiguous())
        param.unsafeGetTensorImpl()->bump_version();  // the kernels wrote past autograd
      else
        param.copy_(params_[i]);
    }
  }

 private:
  at::Tensor keep(const at::Tensor& t) {
    kept_.push_back(t.detach().contiguous());
    return kept_.back();
  }
  const void* gradient(const at::Tensor& t) { return t.defined() ? keep(t).data_ptr() : nullptr; }

  const std::vector<Entry>& entries_;
  std::vector<LatticeTensor> tensors_;
  std::vector<int64_t> sizes_;
  std::vector<at::Tensor> params_, kept_;
};

}  // namespace

void step(const std::vector<Entry>& entries) {
  std::vector<std::unique_ptr<double[]>> sums(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    if (!entries[i].stats.defined()) continue;
    const int64_t chunks = lattice_chunks(entries[i].param.numel());
    sums[i] = std::make_unique<double[]>(static_cast<size_t>(chunks * kLatticeSums));
  }
  const auto kernel = cpu::lattice_kernels().step;
  Views(entries).run([&](size_t i, const LatticeTensor& a, int64_t begin, int64_t end) {
    kernel(entries[i].rule, a, begin, end, sums[i].get());
  });
  for (size_t i = 0; i < entries.size(); ++i)
    if (sums[i])
      add_lattice_sums(sums[i].get(), lattice_chunks(entries[i].param.numel()),
                       entries[i].stats.data_ptr<double>());
}

void materialize(const std::vector<Entry>& entries) {
  const auto kernel = cpu::lattice_kernels().materialize;
  Views(entries).run(
      [&](size_t, const LatticeTensor& a, int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void commit(const std::vector<Entry>& entries) {
  const auto kernel = cpu::lattice_kernels().commit;
  Views(entries).run(
      [&](size_t, const LatticeTensor& a, int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void encode(const std::vector<Entry>& entries) {
  const auto kernel = cpu::lattice_kernels().encode;
  Views(entries).run([&](size_t i, const LatticeTensor& a, int64_t begin, int64_t end) {
    kernel(a, entries[i].rule.bits, begin, end);  // the caller has refused NaN
  });
}

double square_sum(const at::Tensor& x, const at::Tensor& center, double weight_decay) {
  LatticeTensor a{};
  a.n = x.numel();
  a.full_grad = x.data_ptr();
  a.full_number = number_of(x);
  a.number = number_of(center.defined() ? center : x);
  a.center = data_or_null(center);
  const int64_t chunks = lattice_chunks(a.n);
  const auto sums = std::make_unique<double[]>(static_cast<size_t>(chunks));
  in_parallel(chunks, [&](int64_t begin, int64_t end) {
    cpu::square_sums(a, weight_decay, begin * kLatticeChunk, std::min(a.n, end * kLatticeChunk),
                     sums.get());
  });
  return tree_sum(chunks, [&](int64_t c) { return sums[c]; });
}

at::ScalarType own_dtype(const at::Tensor& param) {
  return param.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor new_codes(const at::Tensor& param, int64_t bits, bool pack) {
  if (!pack) return at::zeros(param.sizes(), at::kFloat);
  if (bits <= 4) return at::zeros({(param.numel() + 1) / 2}, at::kByte);
  return at::zeros(param.sizes(), bits <= 8 ? at::kChar : at::kShort);
}

at::Tensor code_values(const at::Tensor& z, const at::Tensor& like) {
  if (z.scalar_type() != at::kByte) return z.to(like.scalar_type());
  const at::Tensor wide = z.to(at::kShort);
  const at::Tensor halves =
      at::stack({wide.bitwise_and(15), wide.bitwise_right_shift(4)}, 1).flatten();
  const at::Tensor q = halves.slice(0, 0, like.numel());
  return at::where(q > 7, q - 16, q).to(like.scalar_type()).view_as(like);
}

}  // namespace torchext::optim
