// Codes as the CUDA kernels read them: tile4, aligned to 16 bytes.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "device.h"
#include "kernels/code_layout.h"
#include "kernels/linear/epoch.h"

namespace torchext::ops {

constexpr int64_t kMostOutputs = 4096;  // of an op over codes: outputs are a dimension of launches

/// A tensor of bytes and where its data lie on a 16-byte boundary: copied once if they do not.
struct AlignedBytes {
  Tensor keep;
  const uint8_t* data;

  explicit AlignedBytes(const Tensor& bytes) : keep(bytes), data(pointer(bytes)) {
    if (reinterpret_cast<uintptr_t>(data) % 16 == 0) return;
    keep = torch::stable::new_empty(bytes, bytes.sizes());
    torch::stable::copy_(keep, bytes);
    data = pointer(keep);
  }

 private:
  static const uint8_t* pointer(const Tensor& t) {
    return static_cast<const uint8_t*>(t.const_data_ptr());
  }
};

/// tile4 codes of a layout's; other layouts are converted for the length of the op.
inline AlignedBytes tile4_codes(const char* op, const Tensor& codes, const CodeLayout& l,
                                cudaStream_t stream) {
  if (l.kind == Layout::tile4) return AlignedBytes(codes);
  Tensor plain = torch::stable::new_empty(codes, {l.rows * l.cols});
  const CodeLayout tiles{Layout::tile4, l.bits, l.rows, l.cols};
  Tensor packed = torch::stable::new_empty(codes, {layout_bytes(tiles)});
  void* each = plain.mutable_data_ptr();
  check_launch(
      op, cuda::launch_unpack_codes(
              {l, each, static_cast<uint8_t*>(const_cast<void*>(codes.const_data_ptr()))}, stream));
  check_launch(op,
               cuda::launch_pack_codes({tiles, each, packed.mutable_data_ptr<uint8_t>()}, stream));
  return AlignedBytes(packed);
}

/// Working memory of an op.
inline Tensor workspace_of(const Tensor& like, size_t bytes) {
  return torch::stable::new_empty(like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
}

/// Every given tensor must be on the op's GPU.
inline void check_all(const Device& device, const char* op,
                      std::initializer_list<std::pair<const char*, const Tensor*>> tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (tensor != nullptr) device.check(op, name, *tensor);
  }
}
inline const Tensor* given(const std::optional<Tensor>& t) { return t.has_value() ? &*t : nullptr; }

}  // namespace torchext::ops
