// How every CUDA kernel of the library is written and launched.
//
// A kernel is a struct:
//
//   struct AddOne {
//     struct Params { float* x; int64_t n; };        // plain data, passed by value
//     static constexpr int kThreads = 256;           // of a block; a multiple of 32
//     TX_DEVICE static void run(const Params& p, const Thread& t) {
//       for (int64_t i = t.index(); i < p.n; i += t.count()) p.x[i] += 1.0f;
//     }
//   };
//   cudaError_t launch_add_one(const AddOne::Params& p, cudaStream_t s) noexcept {
//     return launch<AddOne>(p, {blocks_for(p.n, AddOne::kThreads)}, s);
//   }
//
// The body sees the GPU only through its Thread. nvcc compiles Thread to the built-in variables and
// intrinsics; without nvcc, tests/cuda_emulation supplies one whose blocks run on the CPU, barriers
// and warp exchanges included. So a machine without a GPU tests the very source that a GPU runs, at
// the launch geometry that the launch function chose.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__) || !defined(TORCHEXT_CUDA_EMULATION)
#include <cuda_runtime.h>
#endif
#if defined(__CUDACC__)
#define TX_DEVICE __device__ __forceinline__
#define TX_UNROLL _Pragma("unroll")
#else
#define TX_DEVICE inline
#define TX_UNROLL
#endif

namespace torchext::cuda {

/// The geometry of a launch; `shared` bytes of shared memory a block.
struct Launch {
  int64_t blocks = 1;
  int64_t rows = 1;  // blocks in the second dimension, at most 65,535
  size_t shared = 0;
};

/// Blocks that give each of n elements a thread, at most `most`: the threads stride over the rest.
inline int64_t blocks_for(int64_t n, int64_t per_block, int64_t most = 4096) noexcept {
  const int64_t blocks = (n + per_block - 1) / per_block;
  return blocks < 1 ? 1 : blocks < most ? blocks : most;
}

}  // namespace torchext::cuda

#if defined(__CUDACC__)

namespace torchext::cuda {

extern __shared__ __align__(16) unsigned char shared_memory[];

/// A thread of a launch: where it is, and how it meets the others.
struct Thread {
  __device__ int64_t block() const { return blockIdx.x; }
  __device__ int64_t blocks() const { return gridDim.x; }
  __device__ int64_t row() const { return blockIdx.y; }
  __device__ int64_t rows() const { return gridDim.y; }
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % 32; }
  __device__ int warp() const { return static_cast<int>(threadIdx.x) / 32; }
  /// Position among all threads of a row of blocks, and their number: the grid-stride loop.
  __device__ int64_t index() const { return block() * threads() + thread(); }
  __device__ int64_t count() const { return blocks() * threads(); }

  /// The block's shared memory, aligned to 16 bytes.
  template <class T>
  __device__ T* shared() const {
    return reinterpret_cast<T*>(shared_memory);
  }
  /// All threads of the block arrive; what they wrote before is seen after.
  __device__ void sync() const { __syncthreads(); }

  // Warp exchanges: all 32 lanes must take part. T has 4 or 8 bytes.
  __device__ void sync_warp() const { __syncwarp(); }
  template <class T>
  __device__ T shuffle(T value, int lane) const {
    return __shfl_sync(0xFFFFFFFFu, value, lane);
  }
  template <class T>
  __device__ T shuffle_xor(T value, int mask) const {
    return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
  }
  template <class T>
  __device__ T shuffle_down(T value, int lanes) const {  // lanes beyond the end keep their own
    return __shfl_down_sync(0xFFFFFFFFu, value, static_cast<unsigned>(lanes));
  }
  template <class T>
  __device__ T shuffle_up(T value, int lanes) const {
    return __shfl_up_sync(0xFFFFFFFFu, value, static_cast<unsigned>(lanes));
  }
  __device__ uint32_t ballot(bool vote) const { return __ballot_sync(0xFFFFFFFFu, vote); }

  // Integers only: their sums, minima and unions depend on no order.
  __device__ int32_t add(int32_t* to, int32_t value) const { return atomicAdd(to, value); }
  __device__ uint32_t add(uint32_t* to, uint32_t value) const { return atomicAdd(to, value); }
  __device__ uint64_t add(uint64_t* to, uint64_t value) const {
    return atomicAdd(reinterpret_cast<unsigned long long*>(to), value);
  }
  __device__ int64_t add(int64_t* to, int64_t value) const {
    return static_cast<int64_t>(atomicAdd(reinterpret_cast<unsigned long long*>(to),
                                          static_cast<unsigned long long>(value)));
  }
  __device__ uint32_t unite(uint32_t* to, uint32_t bits) const { return atomicOr(to, bits); }
  __device__ int32_t least(int32_t* to, int32_t value) const { return atomicMin(to, value); }
  __device__ int32_t most(int32_t* to, int32_t value) const { return atomicMax(to, value); }
  __device__ int64_t least(int64_t* to, int64_t value) const {
    return atomicMin(reinterpret_cast<long long*>(to), static_cast<long long>(value));
  }
  __device__ int64_t most(int64_t* to, int64_t value) const {
    return atomicMax(reinterpret_cast<long long*>(to), static_cast<long long>(value));
  }
  /// What this thread wrote to global memory before is seen by whoever sees what it writes after.
  __device__ void fence() const { __threadfence(); }
};

/// Products of four signed bytes, added to c.
TX_DEVICE int32_t dp4a(uint32_t a, uint32_t b, int32_t c) {
  return __dp4a(static_cast<int>(a), static_cast<int>(b), c);
}
/// Four unsigned bytes of a by four signed ones of b, added to c.
TX_DEVICE int32_t dp4a_unsigned(uint32_t a, uint32_t b, int32_t c) {
  int32_t sum;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}

/// Kernel::kMinBlocks, if there is one: blocks that a multiprocessor must have room for. Without it
/// the compiler may think that one block more is worth registers in local memory.
template <class Kernel>
constexpr auto min_blocks(int) -> decltype(Kernel::kMinBlocks) {
  return Kernel::kMinBlocks;
}
template <class Kernel>
constexpr int min_blocks(long) {
  return 0;  // no such demand
}

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, min_blocks<Kernel>(0))
    run(const typename Kernel::Params p) {
  Kernel::run(p, Thread{});
}

/// Runs a kernel on `stream`; the error of the launch, or cudaSuccess.
template <class Kernel>
cudaError_t launch(const typename Kernel::Params& p, const Launch& at,
                   cudaStream_t stream) noexcept {
  static_assert(Kernel::kThreads % 32 == 0 && Kernel::kThreads <= 1024);
  static_assert(sizeof(typename Kernel::Params) <= 4096);
  if (at.blocks < 1 || at.rows < 1) return cudaSuccess;  // nothing to do
  if (at.blocks > 0x7FFFFFFF || at.rows > 65535) return cudaErrorInvalidConfiguration;
  constexpr size_t kDefaultShared = 48 * 1024;
  if (at.shared > kDefaultShared) {
    const cudaError_t status = cudaFuncSetAttribute(
        run<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(at.shared));
    if (status != cudaSuccess) return status;
  }
  const dim3 grid(static_cast<unsigned>(at.blocks), static_cast<unsigned>(at.rows));
  run<Kernel><<<grid, Kernel::kThreads, at.shared, stream>>>(p);
  return cudaGetLastError();
}

/// Zeroes memory in stream order.
inline cudaError_t zero(void* data, size_t bytes, cudaStream_t stream) noexcept {
  return bytes == 0 ? cudaSuccess : cudaMemsetAsync(data, 0, bytes, stream);
}

}  // namespace torchext::cuda

#elif defined(TORCHEXT_CUDA_EMULATION)
#include "emulated_launch.h"
#endif
