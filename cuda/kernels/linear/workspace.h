// Working memory handed out in parts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace torchext::cuda {

/// Parts of one block of memory, aligned to 256 bytes each; with a null base it only counts.
class Parts {
 public:
  explicit Parts(void* base) : base_(static_cast<unsigned char*>(base)) {}
  template <class T>
  void take(T*& to, int64_t count) {
    if (base_ != nullptr) to = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
  }
  size_t used() const { return used_; }

 private:
  unsigned char* base_;
  size_t used_ = 0;
};

}  // namespace torchext::cuda
