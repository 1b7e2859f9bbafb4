// What every CUDA op shares: its device and stream, launch errors, and where ops are registered.
#pragma once

#include "kernels/launch.h"
#include "ops/stable.h"

#if defined(TORCHEXT_CUDA_EMULATION)
// The tests register the same ops as torchext_emulated for tensors in CPU memory.
#define TX_CUDA_OPS(m) STABLE_TORCH_LIBRARY_IMPL(torchext_emulated, CPU, m)
#else
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#define TX_CUDA_OPS(m) STABLE_TORCH_LIBRARY_IMPL(torchext, CUDA, m)
#endif

namespace torchext::ops {

/// The device of an op's first tensor, current until the end of the op, and torch's stream on it.
class Device {
 public:
#if defined(TORCHEXT_CUDA_EMULATION)
  explicit Device(const Tensor&, const char* = "x") {}
  cudaStream_t stream() const { return nullptr; }
#else
  explicit Device(const Tensor& first, const char* name = "x")
      : index_(index_of(first, name)), name_(name), guard_(index_) {}
  cudaStream_t stream() const {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    return static_cast<cudaStream_t>(stream);
  }
#endif

  /// Every other tensor of the op must be on the same GPU.
  void check(const char* op, const char* name, const Tensor& t) const {
#if defined(TORCHEXT_CUDA_EMULATION)
    TX_CHECK(t.is_cpu(), op, name, " must be in CPU memory, got another device");
#else
    TX_CHECK(t.is_cuda() && t.get_device_index() == index_, op, name, " must be on the device of ",
             name_, " (cuda:", index_, "), got ", t.is_cuda() ? "another GPU" : "another device");
#endif
  }

 private:
#if !defined(TORCHEXT_CUDA_EMULATION)
  /// torch chooses the CUDA op by any argument: the first may be elsewhere.
  static int32_t index_of(const Tensor& t, const char* name) {
    TX_CHECK(t.is_cuda(), "cuda", name, " must be on the GPU of the other tensors, got the CPU");
    return t.get_device_index();
  }

  int32_t index_;
  const char* name_;
  torch::stable::accelerator::DeviceGuard guard_;
#endif
};

/// Throws if a launch failed.
inline void check_launch(const char* op, cudaError_t status) {
  TX_CHECK(status == cudaSuccess, op, "x must be on a working device, got ",
           cudaGetErrorString(status));
}

}  // namespace torchext::ops
