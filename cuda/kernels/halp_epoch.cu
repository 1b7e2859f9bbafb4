// An epoch of HALP on CUDA: the integers of the CPU, step by step in one block (halp_steps.cuh) or
// in mini-batches (halp_batch.cu).
#include "halp_steps.cuh"
#include "inner_batch.h"

namespace torchext::cuda {
namespace {

/// alpha_g on the grid of h.
template <class T>
struct Targets {
  using Params = HalpLaunch;
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t stride = stride_of(p.e.loop);
    for (int64_t i = t.index(); i < p.e.loop.outputs * stride; i += t.count()) {
      const double target = halp_target(p.e, p.scale.grid, i / stride, i % stride);
      static_cast<T*>(p.targets)[i] = static_cast<T>(target);
    }
  }
};

HalpLayout layout_of(const cpu::HalpEpoch& e, bool ring) noexcept {
  const bool wide = e.format == cpu::HalpFormat::x16, narrow = e.format == cpu::HalpFormat::z8;
  const int64_t m = e.loop.outputs, pitch = e.loop.pitch, stride = stride_of(e.loop);
  const int64_t steps = steps_together(e.loop.outputs), groups = (pitch + 255) / 256;
  BlockParts parts;
  HalpLayout at{};
  at.z = parts.take(m * pitch * (narrow ? 1 : 2));
  at.drift = parts.take(m * stride * (narrow ? 2 : 4));
  at.ring = parts.take(ring ? kRing * pitch * (wide ? 2 : 1) : 0);
  at.noise = parts.take(steps * m * (wide ? 128 : 64));
  at.cache = parts.take(4 * steps * cpu::slope_cache_size(e.loop.loss, e.loop.outputs));
  at.sums = parts.take(16 * m * groups);
  at.uniforms = parts.take(4 * steps * m);
  at.weights = parts.take(4 * steps);
  at.decays = parts.take(4 * steps);
  at.rows = parts.take(4 * (steps + kRing));
  at.moved = parts.take(4 * m);
  at.changes = parts.take(4 * m);
  at.gammas = parts.take(4 * m);
  at.ends = parts.take(4 * m);
  at.bytes = parts.end;
  return at;
}

bool fits(const cpu::HalpEpoch& e) noexcept { return layout_of(e, true).bytes <= kMostInnerShared; }

int64_t targets_bytes(const cpu::HalpEpoch& e) noexcept {
  const int64_t each = e.format == cpu::HalpFormat::z8 ? sizeof(float) : sizeof(double);
  return e.loop.outputs * stride_of(e.loop) * each;  // a multiple of 16
}

template <class X, class Z, class H, class R>
cudaError_t launch_format(const HalpLaunch& p, cudaStream_t stream) noexcept {
  using To = Targets<std::conditional_t<sizeof(Z) == 1, float, double>>;
  const int64_t count = p.e.loop.outputs * stride_of(p.e.loop);
  const cudaError_t targets = launch<To>(p, {blocks_for(count, To::kThreads)}, stream);
  if (targets != cudaSuccess) return targets;
  const int64_t warps = int64_t{p.groups} * p.e.loop.outputs;
  if (p.scratch != nullptr) return launch<Halp<X, Z, H, R, 1024, false>>(p, {1}, stream);
  const Launch at{1, 1, static_cast<size_t>(p.at.bytes)};
  if (warps <= 4) return launch<Halp<X, Z, H, R, 128, true>>(p, at, stream);
  if (warps <= 16) return launch<Halp<X, Z, H, R, 512, true>>(p, at, stream);
  return launch<Halp<X, Z, H, R, 1024, true>>(p, at, stream);
}

}  // namespace

int64_t halp_scratch(const cpu::HalpEpoch& e) noexcept {
  if (e.loop.batch > 1) return halp_batch_scratch(e);
  return targets_bytes(e) + (fits(e) ? 0 : layout_of(e, false).bytes);
}

cudaError_t launch_halp_epoch(const HalpParams& params, cudaStream_t stream) noexcept {
  if (params.epoch.loop.batch > 1) return launch_halp_batch(params, stream);
  HalpLaunch p{};
  const cudaError_t cached = fill_cache(params, &p, stream);
  if (cached != cudaSuccess) return cached;
  const bool shared = fits(p.e);
  p.targets = params.scratch;
  p.scratch = shared ? nullptr : static_cast<unsigned char*>(params.scratch) + targets_bytes(p.e);
  p.at = layout_of(p.e, shared);
  p.together = steps_together(p.e.loop.outputs);
  p.groups = static_cast<int>((p.e.loop.pitch + 255) / 256);
  p.scale = halp_scale(p.e);
  switch (p.e.format) {
    case cpu::HalpFormat::z8: return launch_format<int8_t, int8_t, int16_t, uint8_t>(p, stream);
    case cpu::HalpFormat::z16: return launch_format<int8_t, int16_t, int32_t, uint8_t>(p, stream);
    case cpu::HalpFormat::x16: return launch_format<int16_t, int16_t, int32_t, uint16_t>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace torchext::cuda
