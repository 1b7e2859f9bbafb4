// Trains MNIST with 8-bit iterates: multi-class logistic regression, then a small convolutional
// net, each with SGD and with HALP, one after the other from the same weights.
//
//   mnist FOLDER [EPOCHS] [ROWS]
//
// FOLDER holds train-images-idx3-ubyte, train-labels-idx1-ubyte and the two t10k files.
#include <torch/torch.h>
#include <torchext/optim.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "idx.h"

namespace {

using at::Tensor;
using torchext::optim::HALP;
using torchext::optim::HALPOptions;
using torchext::optim::WeightedClosure;

constexpr int64_t kBatch = 100;

struct Digits {
  Tensor x, y;  // (n, 1, 28, 28) in [0, 1], labels
};

Digits load(const std::string& folder, const std::string& part, int64_t rows) {
  const Tensor x = read_idx(folder + "/" + part + "-images-idx3-ubyte");
  const Tensor y = read_idx(folder + "/" + part + "-labels-idx1-ubyte");
  if (x.dim() != 3 || y.dim() != 1 || x.size(0) != y.size(0) || x.size(0) == 0)
    throw std::runtime_error(folder + " does not hold as many labels as images");
  const int64_t n = rows > 0 ? std::min(rows, x.size(0)) : x.size(0);
  return {x.narrow(0, 0, n).unsqueeze(1).to(at::kFloat).div(255.0),
          y.narrow(0, 0, n).to(at::kLong)};
}

torch::nn::Sequential logistic_regression() {
  return torch::nn::Sequential(torch::nn::Flatten(), torch::nn::Linear(28 * 28, 10));
}

torch::nn::Sequential conv_net() {
  using torch::nn::Conv2dOptions;
  return torch::nn::Sequential(
      torch::nn::Conv2d(Conv2dOptions(1, 8, 5).stride(2)), torch::nn::ReLU(),
      torch::nn::Conv2d(Conv2dOptions(8, 16, 5).stride(2)), torch::nn::ReLU(), torch::nn::Flatten(),
      torch::nn::Linear(16 * 4 * 4, 10));
}

Tensor loss_of(torch::nn::Sequential& model, const Tensor& x, const Tensor& y) {
  return torch::nn::functional::cross_entropy(model->forward(x), y);
}

/// Forward, backward, and the loss, on rows [begin, end).
torch::optim::Optimizer::LossClosure closure(torch::nn::Sequential& model, const Digits& data,
                                             int64_t begin, int64_t end) {
  const Tensor x = data.x.slice(0, begin, end), y = data.y.slice(0, begin, end);
  return [model, x, y]() mutable {
    model->zero_grad();
    const Tensor loss = loss_of(model, x, y);
    loss.backward();
    return loss;
  };
}

/// The whole data set, a part at a time, for the gradient at a new centre.
std::vector<WeightedClosure> everything(torch::nn::Sequential& model, const Digits& data) {
  std::vector<WeightedClosure> parts;
  const int64_t n = data.y.size(0), size = 1000;
  for (int64_t begin = 0; begin < n; begin += size) {
    const int64_t end = std::min(begin + size, n);
    parts.push_back({closure(model, data, begin, end), static_cast<double>(end - begin)});
  }
  return parts;
}

void report(const char* name, int64_t epoch, torch::nn::Sequential& model, const Digits& train,
            const Digits& test) {
  const torch::NoGradGuard no_grad;
  const double loss = loss_of(model, train.x, train.y).item<double>();
  const Tensor right = model->forward(test.x).argmax(1).eq(test.y);
  std::printf("%s epoch %d: training loss %.5f, test accuracy %.4f\n", name,
              static_cast<int>(epoch), loss, right.to(at::kDouble).mean().item<double>());
}

/// One epoch of mini-batches in a fixed random order; `before` runs before each step.
template <class Optimizer, class Before>
void epoch_of(Optimizer& opt, torch::nn::Sequential& model, const Digits& data,
              const Before& before) {
  const int64_t n = data.y.size(0);
  const Tensor order = torch::randperm(n, at::kLong);
  const Digits shuffled{data.x.index_select(0, order), data.y.index_select(0, order)};
  for (int64_t begin = 0; begin < n; begin += kBatch) {
    before();
    opt.step(closure(model, shuffled, begin, std::min(begin + kBatch, n)));
  }
}

void compare(const std::string& name, torch::nn::Sequential (*make)(), double lr, int64_t epochs,
             const Digits& train, const Digits& test) {
  const int64_t steps = (train.y.size(0) + kBatch - 1) / kBatch;
  torch::manual_seed(0);
  auto model = make();
  report((name + ", start").c_str(), 0, model, train, test);
  torch::optim::SGD sgd(model->parameters(), torch::optim::SGDOptions(lr));
  for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
    epoch_of(sgd, model, train, [] {});
    report((name + ", SGD").c_str(), epoch, model, train, test);
  }

  torch::manual_seed(0);
  model = make();
  HALP halp(model->parameters(), HALPOptions(lr).bits(8), {.T = steps, .seed = 1});
  for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
    epoch_of(halp, model, train, [&] {
      if (halp.needs_recenter()) halp.recenter(everything(model, train));
    });
    report((name + ", HALP 8 bits").c_str(), epoch, model, train, test);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: mnist FOLDER [EPOCHS, default 5] [ROWS, default all]\n");
    return 2;
  }
  try {
    const int64_t epochs = argc > 2 ? std::atoi(argv[2]) : 5;
    const int64_t rows = argc > 3 ? std::atoi(argv[3]) : 0;
    const Digits train = load(argv[1], "train", rows), test = load(argv[1], "t10k", rows);
    std::printf("%d training rows, %d test rows\n", static_cast<int>(train.y.size(0)),
                static_cast<int>(test.y.size(0)));
    compare("logistic regression", logistic_regression, 0.1, epochs, train, test);
    compare("conv net", conv_net, 0.1, epochs, train, test);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mnist: %s\n", error.what());
    return 1;
  }
}
