// What a step does, and what it refuses.
#include <limits>

#include "problems.h"

namespace torchext::optim {
namespace {

/// The text of what body throws.
template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Errors, MissingClosureAndCentre) {
  LeastSquares problem(10, 3, 0);
  HALP opt({problem.w}, HALPOptions(1e-2).mu(1), {.T = 2, .seed = 1});
  EXPECT_TRUE(opt.needs_recenter());
  EXPECT_EQ(error_of([&] { opt.step(problem.example()); }),
            "HALP.step(): no centre yet; call recenter(closures) first.");
  opt.recenter({problem.all()});
  EXPECT_EQ(error_of([&] { opt.step(); }),
            "HALP.step() needs a closure, or a preceding at_centre() pass, because the gradient is "
            "evaluated at two points.");
  EXPECT_EQ(error_of([&] { opt.step([] { return at::Tensor(); }); }),
            "HALP: the closure must return the loss, got an undefined tensor");
  EXPECT_EQ(error_of([&] { opt.recenter(std::vector<WeightedClosure>{}); }),
            "recenter: the closures have no samples; the full gradient is unknown");
  EXPECT_EQ(error_of([&] { opt.recenter({{problem.all().closure, -1.0}}); }),
            "recenter: a closure has weight -1, expected 0 or more samples");
  EXPECT_EQ(
      error_of([&] { opt.recenter(ClosureSource()); }),
      "HALP.recenter() needs closures over the data, for example full_gradient_closures(model, "
      "loss, loader)");
  EXPECT_TRUE(torch::equal(problem.w, torch::zeros({3}, at::kDouble)));
}

TEST(Errors, SettingsThatCannotBe) {
  const at::Tensor w = torch::zeros({2}).requires_grad_();
  const auto halp = [&](const HALPOptions& options, HALPRun run = {.T = 2}) {
    return error_of([&] { HALP({w}, options, run); });
  };
  EXPECT_EQ(halp(HALPOptions(0.0)), "Invalid learning rate: 0");
  EXPECT_EQ(halp(HALPOptions(std::numeric_limits<double>::quiet_NaN())),
            "Invalid learning rate: nan");
  EXPECT_EQ(halp(HALPOptions(0.1).mu(0)), "Invalid mu: 0");
  EXPECT_EQ(halp(HALPOptions(0.1).bits(17)),
            "Invalid bits: 17, expected 2 to 16 for codes kept as integers");
  EXPECT_EQ(halp(HALPOptions(0.1).mu(1).bits(25), {.T = 2, .codes = false}),
            "Invalid bits: 25, expected 2 to 24 for codes kept as float");
  EXPECT_EQ(halp(HALPOptions(0.1).bits(4)),
            "mu = kAutoMu needs 8 bits or more, got 4: give a number and tune it");
  EXPECT_EQ(halp(HALPOptions(0.1).momentum(-1)), "Invalid momentum value: -1");
  EXPECT_EQ(halp(HALPOptions(0.1).weight_decay(-1)), "Invalid weight_decay value: -1");
  EXPECT_EQ(halp(HALPOptions(0.1).svrg_coef(1.5)), "Invalid svrg_coef value: 1.5, expected 0 to 1");
  EXPECT_EQ(halp(HALPOptions(0.1).nesterov(true)),
            "Nesterov momentum requires a momentum and zero dampening");
  EXPECT_EQ(halp(HALPOptions(0.1), {.T = 0}),
            "Invalid T: 0, expected a number of steps, 1 or more");
  EXPECT_EQ(halp(HALPOptions(0.1), {.T = 2, .option = Option::kMean, .loopless = true}),
            "Invalid option: loopless needs Option::kLast");
  EXPECT_EQ(halp(HALPOptions(0.1), {.T = 2, .running_anchor = true}),
            "HALP has no running anchor; BitCentredSGD has");
  EXPECT_EQ(error_of([&] { LPSGD({w}, LPSGDOptions(0.1, 0.0)); }),
            "Invalid delta: 0, expected a positive number, normal in float32, or kAbsmax");
  EXPECT_EQ(error_of([&] { LPSVRG({w}, LPSVRGOptions(0.1), {.T = 2, .option = Option::kMean}); }),
            "Invalid option: Option::kMean, the mean of iterates is not on the lattice");
  const at::Tensor complex = torch::zeros({2}, at::kComplexFloat).requires_grad_();
  EXPECT_EQ(error_of([&] { SVRG({complex}, SVRGOptions(0.1), {.T = 2}); }),
            "SVRG does not support complex parameters");
  const at::Tensor wide = torch::zeros({1}).expand({3}).detach().requires_grad_();
  EXPECT_EQ(error_of([&] { SVRG({wide}, SVRGOptions(0.1), {.T = 2}); }),
            "SVRG needs parameters that do not overlap in memory, got an expanded tensor");
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<at::Tensor>{w}, std::make_unique<torch::optim::SGDOptions>(0.1));
  EXPECT_EQ(error_of([&] { HALP(groups, HALPOptions(0.1), {.T = 2}); }),
            "HALP: a param group has the options of another optimizer");
  groups[0].set_options(std::make_unique<SVRGOptions>(0.1));
  EXPECT_EQ(error_of([&] { HALP(groups, HALPOptions(0.1), {.T = 2}); }),
            "HALP: a param group has the options of another optimizer");
}

TEST(Lattice, RefusesNaNAndAllZero) {
  const at::Tensor w = torch::full({2}, std::nanf("")).requires_grad_();
  LPSGD opt({w}, LPSGDOptions(0.1, 0.5));
  EXPECT_EQ(error_of([&] { opt.step(); }),
            "parameter 0 holds NaN, which has no place on a lattice");
  const at::Tensor zero = torch::zeros({2}).requires_grad_();
  LPSGD absmax({zero}, LPSGDOptions(0.1));
  EXPECT_EQ(error_of([&] { absmax.step(); }),
            "delta = kAbsmax needs weights that are not all zero: give a number");
}

TEST(Lattice, SmallStepByHand) {
  const at::Tensor w = torch::full({1}, 1.1f).requires_grad_();
  LPSGD opt({w}, LPSGDOptions(0.25, 0.5), {.seed = 1});
  w.mutable_grad() = torch::full({1}, 2.0f);
  opt.step();
  EXPECT_EQ(w.item<float>(), 0.5f);
  EXPECT_EQ(opt.state_of(w)->z.item<int>(), 1);
}

TEST(Gradients, ZeroIsConvergence) {
  LeastSquares problem(10, 3, 0);
  problem.y = torch::zeros({10}, at::kDouble);
  HALP opt({problem.w}, HALPOptions(1e-2).mu(1), {.T = 2, .seed = 1});
  EXPECT_TRUE(opt.recenter({problem.all()}).converged);
  EXPECT_EQ(opt.step(problem.example()).item<double>(), 0.0);
  EXPECT_TRUE(torch::equal(problem.w, torch::zeros({3}, at::kDouble)));
  EXPECT_EQ(opt.global_step(), 1);
}

TEST(Gradients, NonFiniteElementsStayAndAreCounted) {
  LeastSquares problem(10, 3, 0);
  const auto bad = [&] {
    const at::Tensor loss = problem.all().closure();
    problem.w.mutable_grad()[1] = std::numeric_limits<double>::infinity();
    return loss;
  };
  HALP opt({problem.w}, HALPOptions(1e-2).mu(1), {.T = 9, .seed = 1, .telemetry = true});
  opt.recenter({problem.all()});
  opt.step(bad);
  EXPECT_EQ(problem.w[1].item<double>(), 0.0);
  EXPECT_NE(problem.w[0].item<double>(), 0.0);
  EXPECT_EQ(opt.telemetry().at(0).nonfinite, 1);
  EXPECT_EQ(opt.telemetry().at(0).steps, 1);
  EXPECT_GT(opt.telemetry().at(0).grad_norm, 0.0);
  SVRG plain({problem.w}, SVRGOptions(1e-2), {.T = 9, .telemetry = true});
  const double norm = plain.recenter({problem.all()}).grad_norm;
  EXPECT_EQ(plain.telemetry().at(0).grad_norm, norm);

  HALP strict({problem.w}, HALPOptions(1e-2).mu(1), {.T = 9, .error_if_nonfinite = true});
  strict.recenter({problem.all()});
  const at::Tensor before = problem.w.detach().clone();
  EXPECT_EQ(error_of([&] { strict.step(bad); }),
            "HALP.step(): the gradient of parameter 0 is not finite");
  EXPECT_TRUE(torch::equal(problem.w, before));
  EXPECT_EQ(error_of([&] { strict.recenter({{bad, 1.0}}); }),
            "recenter: the full gradient is not finite; the weights are those of the last step");
  EXPECT_TRUE(torch::equal(problem.w, before));
  EXPECT_TRUE(strict.needs_recenter());
}

TEST(Gradients, NoneAndSparse) {
  const at::Tensor used = torch::ones({2}).requires_grad_(),
                   unused = torch::ones({2}).requires_grad_();
  SVRG opt({used, unused}, SVRGOptions(0.5), {.T = 2});
  const auto closure = [&] {
    opt.zero_grad();
    const at::Tensor loss = used.square().sum() / 2;
    loss.backward();
    return loss;
  };
  opt.recenter({{closure, 1}});
  opt.step(closure);
  EXPECT_TRUE(torch::equal(used, torch::full({2}, 0.5)));
  EXPECT_TRUE(torch::equal(unused, torch::ones({2})));

  const at::Tensor table = torch::ones({4, 2}).requires_grad_();
  LPSGD sparse({table}, LPSGDOptions(0.1, 0.5));
  torch::embedding(table, torch::tensor({1}), -1, false, /*sparse=*/true).sum().backward();
  EXPECT_EQ(error_of([&] { sparse.step(); }), "LPSGD does not support sparse gradients");
}

TEST(Parameters, EmptyStridedAndHalf) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    const at::Tensor strided = torch::full({3, 4}, 0.5, dtype).t().requires_grad_();
    const at::Tensor empty = torch::zeros({0}, dtype).requires_grad_();
    HALP opt({strided, empty}, HALPOptions(0.25).mu(1), {.T = 4, .seed = 1});
    const auto closure = [&] {
      opt.zero_grad();
      const at::Tensor loss = (strided.square().sum() + empty.sum()) / 2;
      loss.backward();
      return loss;
    };
    for (int k = 0; k < 12; ++k) {
      if (opt.needs_recenter()) opt.recenter({{closure, 1}});
      opt.step(closure);
    }
    EXPECT_LT(strided.abs().max().item<double>(), 0.05);
    const auto own = dtype == at::kDouble ? at::kDouble : at::kFloat;
    EXPECT_EQ(opt.state_of(strided)->center.scalar_type(), own);
    EXPECT_EQ(opt.state_of(strided)->z.scalar_type(), at::kChar);
  }
}

TEST(Passes, DropoutMasksAgreeAndBuffersMoveOnce) {
  torch::manual_seed(0);
  torch::nn::Sequential net(torch::nn::Linear(4, 8), torch::nn::BatchNorm1d(8),
                            torch::nn::Dropout(0.5), torch::nn::Linear(8, 1));
  SVRG opt(net->parameters(), SVRGOptions(0.01), {.T = 8});
  opt.register_buffers(net->buffers());
  const at::Tensor x = torch::randn({16, 4});
  std::vector<at::Tensor> outputs;
  const auto closure = [&] {
    opt.zero_grad();
    outputs.push_back(net->forward(x));
    const at::Tensor loss = outputs.back().square().mean();
    loss.backward();
    return loss;
  };
  opt.recenter({{closure, 16}});
  outputs.clear();
  const auto* norm = net[1]->as<torch::nn::BatchNorm1d>();
  const auto seen = norm->num_batches_tracked.item<int64_t>();
  opt.step(closure);
  ASSERT_EQ(outputs.size(), 2u);
  // The first step starts at the centre: equal masks mean equal outputs.
  EXPECT_TRUE(torch::equal(outputs[0], outputs[1]));
  EXPECT_EQ(norm->num_batches_tracked.item<int64_t>(), seen + 1);
}

TEST(Passes, AtCentreReplacesTheClosure) {
  LeastSquares a(20, 4, 0), b(20, 4, 0);
  HALP with({a.w}, HALPOptions(1e-3).mu(1), {.T = 9, .seed = 1});
  HALP without({b.w}, HALPOptions(1e-3).mu(1), {.T = 9, .seed = 1});
  with.recenter({a.all()});
  without.recenter({b.all()});
  for (int k = 0; k < 5; ++k) {
    const auto pass = b.example();
    without.at_centre([&] { pass(); });
    pass();
    without.step();
    with.step(a.example());
  }
  EXPECT_TRUE(torch::equal(a.w, b.w));
}

TEST(Threads, TwoGiveTheBitsOfOne) {
  const auto run = [](int threads) {
    at::set_num_threads(threads);
    const at::Tensor w = torch::linspace(-1, 1, 100000).requires_grad_();
    HALP opt({w}, HALPOptions(0.1).momentum(0.5), {.T = 3, .seed = 1});
    const auto closure = [&] {
      w.mutable_grad() = w.detach().clone();
      return torch::zeros({});
    };
    for (int k = 0; k < 9; ++k) {
      if (opt.needs_recenter()) opt.recenter({{closure, 1}});
      opt.step(closure);
    }
    at::set_num_threads(1);
    return std::make_pair(w.detach().clone(), *opt.state_of(w));
  };
  const auto one = run(1), two = run(2);
  EXPECT_TRUE(torch::equal(one.first, two.first));
  EXPECT_TRUE(one.second == two.second);
}

TEST(FullGradient, ClosuresOverALoaderRestoreBuffers) {
  struct Rows : torch::data::datasets::Dataset<Rows> {
    torch::data::Example<> get(size_t i) override {
      const auto v = static_cast<float>(i);
      return {torch::tensor({v, 1.0f}), torch::tensor({2.0f * v})};
    }
    std::optional<size_t> size() const override { return 10; }
  };
  const auto loader = torch::data::make_data_loader(Rows().map(torch::data::transforms::Stack<>()),
                                                    torch::data::DataLoaderOptions().batch_size(4));
  torch::nn::Sequential net(torch::nn::BatchNorm1d(2), torch::nn::Linear(2, 1));
  const auto* norm = net[0]->as<torch::nn::BatchNorm1d>();
  SVRG opt(net->parameters(), SVRGOptions(0.1), {.T = 3});
  const auto loss = [](const at::Tensor& out, const at::Tensor& y) {
    return torch::mse_loss(out, y);
  };
  const auto info = opt.recenter(full_gradient_closures(net, loss, *loader));
  EXPECT_EQ(info.samples, 10.0);
  EXPECT_GT(info.grad_norm, 0.0);
  EXPECT_EQ(norm->num_batches_tracked.item<int64_t>(), 0);
}

}  // namespace
}  // namespace torchext::optim
