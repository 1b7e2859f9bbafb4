// Closures over a data loader, for recenter().
#pragma once

#include <torch/types.h>
#include <torchext/optim/center.h>

#include <memory>
#include <utility>
#include <vector>

namespace torchext::optim {

/// Copies of buffers, put back when the last owner goes.
class KeptBuffers {
 public:
  explicit KeptBuffers(std::vector<at::Tensor> buffers) : buffers_(std::move(buffers)) {
    for (const at::Tensor& b : buffers_) saved_.push_back(b.detach().clone());
  }
  KeptBuffers(const KeptBuffers&) = delete;
  KeptBuffers& operator=(const KeptBuffers&) = delete;
  ~KeptBuffers() {
    const torch::NoGradGuard no_grad;
    for (size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_(saved_[i]);
  }

 private:
  std::vector<at::Tensor> buffers_, saved_;
};

/// One closure per batch of a data loader, weighted by its samples.
///
/// `model` points to a module with forward(data), `loss(output, target)` is the mean loss of a
/// batch, batches are torch::data::Example<>. The model's buffers, such as batch-norm statistics,
/// are as before once the last closure has run. Dropout and augmentation make the full gradient an
/// estimate.
template <class Model, class Loss, class Loader>
ClosureSource full_gradient_closures(Model model, Loss loss, Loader& loader) {
  struct Source {
    Source(Model m, Loss l, Loader& from)
        : kept(m->buffers()), model(m), loss(l), next(from.begin()), end(from.end()) {}
    KeptBuffers kept;
    Model model;
    Loss loss;
    decltype(loader.begin()) next;
    decltype(loader.end()) end;
  };
  auto source = std::make_shared<Source>(model, loss, loader);
  return [source]() mutable -> std::optional<WeightedClosure> {
    if (!source || source->next == source->end) {
      source.reset();
      return std::nullopt;
    }
    const auto batch = *source->next;
    ++source->next;
    const auto pass = [source, batch] {
      const at::Tensor value = source->loss(source->model->forward(batch.data), batch.target);
      value.backward();
      return value;
    };
    return WeightedClosure{pass, static_cast<double>(batch.data.size(0))};
  };
}

}  // namespace torchext::optim
