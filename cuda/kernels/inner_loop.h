// Launch functions of the inner epochs of HALP and SVRG; they need the CUDA runtime, no torch.
#pragma once

#include "kernels/linear/inner_loop.h"
#include "launch.h"

namespace torchext::cuda {

/// The epochs of csrc/kernels/linear/inner_loop.h, arrays in device memory, rows (and with
/// mini-batches the z of HALP) aligned to 16 bytes, to the same bits; z and its intercept need not
/// be 0 before. What is not finite in alpha_g gives steps without meaning.
struct HalpParams {
  cpu::HalpEpoch epoch;  // its loop without cache and key
  const uint64_t* key;   // seed, offset
  const float* phi;      // [outputs, rows]
  float* cache;          // [rows, slope_cache_size]: scratch memory
  void* scratch;         // halp_scratch() bytes, aligned to 16
};
int64_t halp_scratch(const cpu::HalpEpoch& e) noexcept;
cudaError_t launch_halp_epoch(const HalpParams& p, cudaStream_t stream) noexcept;

struct SvrgParams {
  cpu::SvrgEpoch epoch;
  const uint64_t* key;
  const float* phi;
  float* cache;
  void* scratch;  // svrg_scratch() bytes, aligned to 16
};
int64_t svrg_scratch(const cpu::SvrgEpoch& e) noexcept;
cudaError_t launch_svrg_epoch(const SvrgParams& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
