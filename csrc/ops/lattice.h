// Lists of tensors as the lattice kernels see them, on any device: no value in them is read.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "kernels/optim/lattice_lists.h"
#include "stable.h"

namespace torchext::ops {

using Tensors = std::vector<Tensor>;

inline Number number_of(const char* op, const char* name, const Tensor& t) {
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

inline CodeStore store_of(const char* op, const Tensor& z) {
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
inline int store_bits(CodeStore store) {
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
      spacings_.push_back(nullptr);
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
      spacings_[static_cast<size_t>(&a - tensors_.data())] = t.const_data_ptr();
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

  /// Copies weights that were not contiguous back to where they came from.
  void write_back() const {
    for (size_t i = 0; i < params_.size(); ++i) {
      if (params_[i].is_contiguous()) continue;
      Tensor to = params_[i];
      torch::stable::copy_(to, dense_[i]);
    }
  }

  /// Tensors whose `delta` is 1: the spacings are in memory of their device.
  const std::vector<LatticeTensor>& tensors() const { return tensors_; }
  /// Where each tensor has its spacing, float or double as own(); null: 1.
  const std::vector<const void*>& spacings() const { return spacings_; }

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
  std::vector<const void*> spacings_;
  Tensors dense_, kept_;
};

}  // namespace torchext::ops
