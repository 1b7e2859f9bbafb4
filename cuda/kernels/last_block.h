// Work that several blocks of a launch share, continued by the one that comes last.
#pragma once

#include "launch.h"

namespace torchext::cuda {

/// Loads past the first-level cache: what other blocks of this kernel wrote. The clobber keeps the
/// order: some callers zero the place afterwards, and the compiler must not move that store up.
TX_DEVICE uint32_t load_past(const uint32_t* from) {
#if defined(__CUDACC__)
  uint32_t value;
  asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
#else
  return *from;
#endif
}
TX_DEVICE int32_t load_past(const int32_t* from) {
  return static_cast<int32_t>(load_past(reinterpret_cast<const uint32_t*>(from)));
}
TX_DEVICE float load_past(const float* from) {
#if defined(__CUDACC__)
  return __uint_as_float(load_past(reinterpret_cast<const uint32_t*>(from)));
#else
  return *from;
#endif
}

/// Whether this block is the last of `expected` that come here; it then sees what the others wrote
/// (by load_past) and *counter is 0 again. `flag` is in shared memory.
TX_DEVICE bool last_to_arrive(const Thread& t, uint32_t* counter, uint32_t expected, int* flag) {
  t.fence();
  t.sync();
  if (t.thread() == 0) {
    const bool last = t.add(counter, 1u) + 1 == expected;
    if (last) *counter = 0;
    *flag = last ? 1 : 0;
    t.fence();
  }
  t.sync();
  return *flag != 0;
}

}  // namespace torchext::cuda
