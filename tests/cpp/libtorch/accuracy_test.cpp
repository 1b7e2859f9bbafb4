// Problem P of docs/optimizers.md: least squares with label noise, 1,000 x 100, 8-bit inputs, T =
// 2,000 single-example steps, lr 1e-3. The gradient norm starts near 150.
#include "problems.h"

namespace torchext::optim {
namespace {

constexpr int64_t kT = 2000;

template <class Optimizer, class Options>
double final_norm(Options options, int64_t epochs, Run run = {},
                  at::ScalarType dtype = at::kDouble) {
  at::set_num_threads(1);
  LeastSquares problem(1000, 100, 0, dtype);
  EXPECT_GT(problem.gradient_norm(), 100.0);
  run.T = kT;
  run.seed = 1;
  Optimizer opt({problem.w}, options, run);
  train(opt, problem, epochs * kT);
  return problem.gradient_norm();
}

TEST(Accuracy, HalpHasNoFloor) {
  EXPECT_LE(final_norm<HALP>(HALPOptions(1e-3).mu(1.5), 45), 1e-12);
}

TEST(Accuracy, SvrgHasNoFloor) { EXPECT_LE(final_norm<SVRG>(SVRGOptions(1e-3), 36), 1e-10); }

TEST(Accuracy, AutomaticMuKeepsUp) {
  EXPECT_LE(final_norm<HALP>(HALPOptions(1e-3), 18), 1.5e-4);  // 1e-6 of the start
}

TEST(Accuracy, LpSvrgStopsAtItsFloor) {
  const double norm = final_norm<LPSVRG>(LPSVRGOptions(1e-3, 0.8).bits(8), 10);
  EXPECT_GE(norm, 15.0);
  EXPECT_LE(norm, 45.0);
}

TEST(Accuracy, LpSgdStopsAtItsFloor) {
  const double norm = final_norm<LPSGD>(LPSGDOptions(1e-4, 0.8), 20);
  EXPECT_GE(norm, 10.0);
  EXPECT_LE(norm, 50.0);
}

TEST(Accuracy, NearestRoundingNeverMoves) {
  at::set_num_threads(1);
  LeastSquares problem(1000, 100, 0);
  const double before = problem.gradient_norm();
  HALP opt({problem.w}, HALPOptions(1e-3).mu(1.5).nearest(true), {.T = kT, .seed = 1});
  train(opt, problem, 2 * kT);
  EXPECT_EQ(problem.gradient_norm(), before);
}

TEST(Accuracy, Float32PassesTheStallOfPlainUpdates) {
  EXPECT_LE(final_norm<SVRG>(SVRGOptions(1e-3), 22, {}, at::kFloat), 3e-5);
  EXPECT_LE(final_norm<HALP>(HALPOptions(1e-3).mu(1.5), 24, {}, at::kFloat), 3e-5);
}

}  // namespace
}  // namespace torchext::optim
