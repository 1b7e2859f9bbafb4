// Exact passes over full-precision rows, and loss terms of scores, on CUDA.
#include "ops/exact_pass.h"

#include "device.h"
#include "kernels/exact_pass.h"
#include "kernels/loss_terms.h"

namespace torchext::ops {
namespace {

void exact_pass_cuda(const Tensor& x, const Tensor& w, const Tensor& offset, const Tensor& y,
                     const std::optional<Tensor>& weight, std::string loss, Tensor z,
                     Tensor gradient, Tensor total) {
  constexpr const char* op = "_exact_pass";
  const Device device(x);
  device.check(op, "w", w);
  device.check(op, "offset", offset);
  device.check(op, "y", y);
  if (weight.has_value()) device.check(op, "weight", *weight);
  device.check(op, "z", z);
  device.check(op, "gradient", gradient);
  device.check(op, "total", total);
  const ExactPassArgs args = read_exact_pass(op, x, w, offset, y, weight, loss, z, gradient, total);
  if (args.rows == 0) return;
  const int64_t size = cuda::exact_pass_workspace(args.rows, args.pass.cols, args.pass.outputs);
  const Tensor workspace = torch::stable::new_empty(x, {size}, ScalarType::Double);
  const cuda::ExactPassParams p{args.pass, args.rows, args.gradient, args.total,
                                workspace.mutable_data_ptr<double>()};
  check_launch(op, cuda::launch_exact_pass(p, device.stream()));
}

Tensor loss_terms_cuda(const Tensor& z, const Tensor& y, const std::optional<Tensor>& weight,
                       const std::optional<Tensor>& moved, const std::optional<Tensor>& score,
                       const std::optional<Tensor>& length, std::string loss,
                       const std::optional<Tensor>& slopes) {
  constexpr const char* op = "_loss_terms";
  const Device device(z);
  device.check(op, "y", y);
  if (weight.has_value()) device.check(op, "weight", *weight);
  if (moved.has_value()) device.check(op, "moved", *moved);
  if (score.has_value()) device.check(op, "score", *score);
  if (length.has_value()) device.check(op, "length", *length);
  if (slopes.has_value()) device.check(op, "slopes", *slopes);
  const cpu::LossTerms a = read_loss_terms(op, z, y, weight, moved, score, length, loss, slopes);
  Tensor sums = torch::stable::new_empty(z, {a.outputs, cpu::kTermSums}, ScalarType::Double);
  const int64_t chunks = (a.rows + cpu::kTermRows - 1) / cpu::kTermRows;
  const Tensor parts =
      torch::stable::new_empty(sums, {chunks, a.outputs, cpu::kTermSums}, ScalarType::Double);
  auto* const to = sums.mutable_data_ptr<double>();
  check_launch(op,
               cuda::launch_loss_terms({a, parts.mutable_data_ptr<double>(), to}, device.stream()));
  return sums;
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("_exact_pass", TORCH_BOX(&torchext::ops::exact_pass_cuda));
  m.impl("_loss_terms", TORCH_BOX(&torchext::ops::loss_terms_cuda));
}
