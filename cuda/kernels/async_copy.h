// Copies from global to shared memory that do not wait, and fetches into the second-level cache.
#pragma once

#include <cstring>

#include "launch.h"

namespace torchext::cuda {

#if defined(__CUDACC__)

/// Starts a copy of 16 bytes, both ends aligned to 16. The thread that started it sees them after
/// copies_wait(), the others of the block after a barrier from there.
TX_DEVICE void copy_async16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#else
  *static_cast<int4*>(shared) = *static_cast<const int4*>(global);
#endif
}
/// Ends a group of copies.
TX_DEVICE void copies_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits for all but the last kPending groups of this thread.
template <int kPending>
TX_DEVICE void copies_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}
TX_DEVICE void fetch_line(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

#else  // in emulation a copy is done at once

TX_DEVICE void copy_async16(void* shared, const void* global) { std::memcpy(shared, global, 16); }
TX_DEVICE void copies_commit() {}
template <int kPending>
TX_DEVICE void copies_wait() {}
TX_DEVICE void fetch_line(const void*) {}

#endif

}  // namespace torchext::cuda
