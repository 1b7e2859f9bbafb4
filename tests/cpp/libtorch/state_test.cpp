// Options, param groups, schedulers, saving and exact resume.
#include <sstream>

#include "problems.h"

namespace torchext::optim {
namespace {

template <class Options>
Options through_archive(const Options& options) {
  std::stringstream stream;
  torch::serialize::OutputArchive out;
  options.serialize(out);
  out.save_to(stream);
  torch::serialize::InputArchive in;
  in.load_from(stream);
  Options back(1.0);
  back.serialize(in);
  return back;
}

TEST(Options, ChainCompareAndSurviveAnArchive) {
  const auto halp =
      HALPOptions(0.1).momentum(0.9).mu(2.5).bits(4).weight_decay(1e-4).nesterov(true);
  EXPECT_EQ(halp.mu(), 2.5);
  EXPECT_TRUE(through_archive(halp) == halp);
  EXPECT_FALSE(through_archive(halp) == HALPOptions(halp).bits(5));
  const auto lp = LPSVRGOptions(0.1, 0.25).svrg_coef(0.5).dampening(0.1).maximize(true);
  EXPECT_TRUE(through_archive(lp) == lp);
  EXPECT_EQ(lp.bits(), 16);
  EXPECT_TRUE(through_archive(SVRGOptions(0.3)) == SVRGOptions(0.3));
  const auto decoupled = BitCentredSGDOptions(0.3).mu(2).decoupled_weight_decay(true);
  EXPECT_TRUE(through_archive(decoupled) == decoupled);
  EXPECT_TRUE(through_archive(LPSGDOptions(0.3).bits(3)) == LPSGDOptions(0.3).bits(3));
}

TEST(Options, CloneKeepsTheClass) {
  const std::unique_ptr<torch::optim::OptimizerOptions> options =
      std::make_unique<HALPOptions>(HALPOptions(0.1).mu(3));
  const auto copy = options->clone();
  EXPECT_TRUE(dynamic_cast<const HALPOptions&>(*copy) == HALPOptions(0.1).mu(3));
  copy->set_lr(0.2);
  EXPECT_EQ(copy->get_lr(), 0.2);
  EXPECT_EQ(options->get_lr(), 0.1);
}

TEST(Groups, HaveTheirOwnSettingsAndStreams) {
  const at::Tensor a = torch::ones({3}).requires_grad_(), b = torch::ones({3}).requires_grad_();
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<at::Tensor>{a});
  groups.emplace_back(std::vector<at::Tensor>{b},
                      std::make_unique<HALPOptions>(HALPOptions(0.5).mu(1).bits(4)));
  HALP opt(groups, HALPOptions(0.1).mu(2), {.T = 2, .seed = 3});
  const auto closure = [&] {
    opt.zero_grad();
    const at::Tensor loss = (a.square().sum() + b.square().sum()) / 2;
    loss.backward();
    return loss;
  };
  opt.recenter({{closure, 1}});
  opt.step(closure);
  EXPECT_EQ(opt.state_of(a)->bits, 8);
  EXPECT_EQ(opt.state_of(b)->bits, 4);
  EXPECT_EQ(opt.state_of(a)->z.scalar_type(), at::kChar);
  EXPECT_EQ(opt.state_of(b)->z.scalar_type(), at::kByte);
  EXPECT_NEAR(a[0].item<double>(), 0.9, 0.02);
  EXPECT_NEAR(b[0].item<double>(), 0.5, 0.2);

  const at::Tensor late = torch::ones({2}).requires_grad_();
  opt.add_param_group(torch::optim::OptimizerParamGroup({late}));
  EXPECT_TRUE(opt.needs_recenter());
  EXPECT_THROW(opt.step(closure), std::runtime_error);
  opt.recenter({{closure, 1}});
  opt.step(closure);
  EXPECT_EQ(opt.state_of(late)->bits, 8);
}

TEST(Scheduler, StepLrActsAsOnSgd) {
  LeastSquares problem(20, 4, 0);
  HALP opt({problem.w}, HALPOptions(0.02).mu(1), {.T = 4, .seed = 1});
  torch::optim::SGD sgd({torch::zeros({1}).requires_grad_()}, torch::optim::SGDOptions(0.02));
  torch::optim::StepLR scheduler(opt, /*step_size=*/2, /*gamma=*/0.1), other(sgd, 2, 0.1);
  const auto lr = [](auto& optimizer) { return optimizer.param_groups()[0].options().get_lr(); };
  for (int k = 0; k < 6; ++k) {
    train(opt, problem, 1);
    scheduler.step();
    other.step();
    EXPECT_EQ(lr(opt), lr(sgd));
  }
  EXPECT_LT(lr(opt), 0.02 * 0.011);
}

/// Makes an optimizer of each kind, with options that need state of their own.
template <class Body>
void for_each_kind(const Body& body) {
  const Run run{.T = 6, .seed = 9};
  body([=](const at::Tensor& w) {
    return std::make_unique<SVRG>(std::vector{w}, SVRGOptions(1e-3).momentum(0.5), run);
  });
  body([=](const at::Tensor& w) {
    return std::make_unique<HALP>(std::vector{w}, HALPOptions(1e-3).momentum(0.5), run);
  });
  body([=](const at::Tensor& w) {
    return std::make_unique<HALP>(std::vector{w}, HALPOptions(1e-3).mu(2).bits(4),
                                  Run{.T = 6, .option = Option::kRandom, .seed = 9});
  });
  body([=](const at::Tensor& w) {
    return std::make_unique<HALP>(
        std::vector{w}, HALPOptions(1e-3).mu(2),
        Run{.T = 6, .option = Option::kMean, .seed = 9, .anchor_dtype = at::kBFloat16});
  });
  body([=](const at::Tensor& w) {
    return std::make_unique<HALP>(std::vector{w}, HALPOptions(1e-3).mu(2),
                                  Run{.T = 3, .loopless = true, .seed = 9});
  });
  body([=](const at::Tensor& w) {
    return std::make_unique<BitCentredSGD>(std::vector{w}, BitCentredSGDOptions(1e-3).mu(2), run);
  });
  body([=](const at::Tensor& w) {
    return std::make_unique<LPSVRG>(std::vector{w}, LPSVRGOptions(1e-3, 0.01), run);
  });
  body([=](const at::Tensor& w) {
    return std::make_unique<LPSGD>(std::vector{w}, LPSGDOptions(1e-3, 0.01).bits(16), run);
  });
}

TEST(Resume, InMidEpochIsExact) {
  for_each_kind([](const auto& make) {
    LeastSquares whole(30, 5, 2, at::kFloat), first(30, 5, 2, at::kFloat);
    auto a = make(whole.w);
    train(*a, whole, 21);
    auto b = make(first.w);
    train(*b, first, 9);

    std::stringstream stream;
    torch::save(*b, stream);
    LeastSquares second(first);                          // the same examples to come
    second.w = torch::full({5}, 7.0f).requires_grad_();  // loading rewrites the parameters
    auto c = make(second.w);
    torch::load(*c, stream);
    EXPECT_TRUE(torch::equal(second.w, first.w));
    EXPECT_TRUE(*c->state_of(second.w) == *b->state_of(first.w));
    EXPECT_EQ(c->global_step(), 9);
    train(*c, second, 12);
    EXPECT_TRUE(torch::equal(second.w, whole.w));
    EXPECT_TRUE(*c->state_of(second.w) == *a->state_of(whole.w));
  });
}

TEST(Resume, BeforeTheFirstStepChangesNothing) {
  for_each_kind([](const auto& make) {
    LeastSquares problem(30, 5, 2, at::kFloat);
    problem.w = torch::full({5}, 7.0f).requires_grad_();
    auto a = make(problem.w);
    std::stringstream stream;
    torch::save(*a, stream);
    torch::load(*a, stream);
    EXPECT_TRUE(torch::equal(problem.w, torch::full({5}, 7.0f)));
    train(*a, problem, 2);
  });
}

TEST(Resume, RefusesAnotherMethodAndOtherShapes) {
  LeastSquares problem(30, 5, 2), wide(30, 6, 2);
  HALP halp({problem.w}, HALPOptions(1e-3).mu(2), {.T = 4, .seed = 1});
  train(halp, problem, 2);
  std::stringstream stream, again;
  torch::save(halp, stream);
  torch::save(halp, again);
  SVRG svrg({problem.w}, SVRGOptions(1e-3), {.T = 4});
  try {
    torch::load(svrg, stream);
    FAIL() << "a state of HALP was loaded";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "SVRG.load(): the state was saved by HALP");
  }
  HALP other({wide.w}, HALPOptions(1e-2).mu(3), {.T = 4});
  try {
    torch::load(other, again);
    FAIL() << "a state of another shape was loaded";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "HALP.load(): center of parameter 0 has 5 elements, expected 6");
  }
  EXPECT_EQ(other.param_groups()[0].options().get_lr(), 1e-2);  // nothing has changed
  EXPECT_EQ(other.state_of(wide.w), nullptr);
}

/// What loading a state of HALP with these state numbers and counters says.
std::string load_error(const std::vector<int64_t>& states, const std::vector<int64_t>& counters) {
  const at::Tensor w = torch::ones({3}).requires_grad_();
  HALP opt({w}, HALPOptions(0.1), {.T = 4, .seed = 1});
  torch::serialize::OutputArchive saved;
  saved.write("method", torch::IValue("HALP"));
  saved.write("stream_version", torch::IValue(int64_t{1}));
  saved.write("seed", torch::IValue(int64_t{7}));
  saved.write("groups", torch::IValue(std::vector<int64_t>{1}));
  torch::serialize::OutputArchive options(saved.compilation_unit());
  HALPOptions(0.5).serialize(options);
  saved.write("group0", options);
  saved.write("states", torch::IValue(states));
  saved.write("counters", torch::IValue(counters));
  std::stringstream stream;
  saved.save_to(stream);
  torch::serialize::InputArchive archive;
  archive.load_from(stream);
  std::string error;
  try {
    opt.load(archive);
  } catch (const std::invalid_argument& refused) {
    error = refused.what();
    EXPECT_EQ(opt.param_groups()[0].options().get_lr(), 0.1);  // nothing has changed
    EXPECT_EQ(opt.seed(), 1u);
  }
  return error;
}

TEST(Resume, RefusesADamagedArchive) {
  EXPECT_EQ(load_error({}, {0, 0, 0, 0, 0, 0}), "");
  EXPECT_EQ(load_error({}, {0, 0, 0}), "HALP.load(): the saved state has 3 counters, expected 6");
  for (const int64_t number : {1, -1})
    EXPECT_EQ(load_error({number}, {0, 0, 0, 0, 0, 0}),
              "HALP.load(): the saved state has parameter " + std::to_string(number) +
                  ", this optimizer has 1 parameters");
}

TEST(Seed, ComesFromTorchsGenerator) {
  const at::Tensor w = torch::zeros({2}).requires_grad_();
  const auto seed = [&] {
    torch::manual_seed(5);
    return HALP({w}, HALPOptions(0.1), {.T = 1}).seed();
  };
  EXPECT_EQ(seed(), seed());
  torch::manual_seed(6);
  EXPECT_NE(HALP({w}, HALPOptions(0.1), {.T = 1}).seed(), seed());
}

}  // namespace
}  // namespace torchext::optim
