// The CPU's version of the second half of cuda/kernels/launch.h: the same Thread and launch().
//
// The threads of a block are fibers of one CPU thread that hand over only at barriers and warp
// exchanges, blocks run one after the other, and every other block runs its threads backwards (in
// the next launch the others): a missing barrier shows as a wrong result. A barrier that only some
// threads reach aborts with a message.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument or launch geometry";
}

namespace torchext::cuda {

namespace emulation {

constexpr int kWarp = 32;

class Block;  // the fibers of a block, in emulated_launch.cpp

/// Waits for the other threads of the block.
void sync(Block& block);
/// Hands `value` to the lanes of the warp and returns all 32 of theirs, valid until the next call.
const uint64_t* exchange(Block& block, uint64_t value);

struct Place {
  Block* fibers;
  int64_t block, blocks, row, rows;
  int thread, threads;
  unsigned char* shared;
};
using Entry = void (*)(const void* params, const Place& place);
cudaError_t run(Entry entry, const void* params, const Launch& at, int threads) noexcept;

}  // namespace emulation

/// A thread of a launch: where it is, and how it meets the others.
struct Thread {
  emulation::Place at;

  int64_t block() const { return at.block; }
  int64_t blocks() const { return at.blocks; }
  int64_t row() const { return at.row; }
  int64_t rows() const { return at.rows; }
  int thread() const { return at.thread; }
  int threads() const { return at.threads; }
  int lane() const { return at.thread % emulation::kWarp; }
  int warp() const { return at.thread / emulation::kWarp; }
  int64_t index() const { return block() * threads() + thread(); }
  int64_t count() const { return blocks() * threads(); }

  template <class T>
  T* shared() const {
    return reinterpret_cast<T*>(at.shared);
  }
  void sync() const { emulation::sync(*at.fibers); }
  void sync_warp() const { emulation::exchange(*at.fibers, 0); }

  template <class T>
  T shuffle(T value, int from) const {
    return take(value, from & 31);
  }
  template <class T>
  T shuffle_xor(T value, int mask) const {
    return take(value, (lane() ^ mask) & 31);
  }
  template <class T>
  T shuffle_down(T value, int lanes) const {
    return take(value, lane() + lanes < emulation::kWarp ? lane() + lanes : lane());
  }
  template <class T>
  T shuffle_up(T value, int lanes) const {
    return take(value, lane() >= lanes ? lane() - lanes : lane());
  }
  uint32_t ballot(bool vote) const {
    const uint64_t* votes = emulation::exchange(*at.fibers, vote ? 1 : 0);
    uint32_t bits = 0;
    for (int k = 0; k < emulation::kWarp; ++k) bits |= static_cast<uint32_t>(votes[k]) << k;
    return bits;
  }

  template <class T>
  T add(T* to, T value) const {
    static_assert(std::is_integral_v<T>, "float sums would depend on the order");
    return std::exchange(*to, static_cast<T>(*to + value));
  }
  uint32_t unite(uint32_t* to, uint32_t bits) const { return std::exchange(*to, *to | bits); }
  template <class T>
  T least(T* to, T value) const {
    return std::exchange(*to, *to < value ? *to : value);
  }
  template <class T>
  T most(T* to, T value) const {
    return std::exchange(*to, *to < value ? value : *to);
  }
  void fence() const {}

 private:
  template <class T>
  T take(T value, int from) const {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    uint64_t word = 0;
    std::memcpy(&word, &value, sizeof value);
    word = emulation::exchange(*at.fibers, word)[from];
    std::memcpy(&value, &word, sizeof value);
    return value;
  }
};

namespace emulation {

inline int32_t byte_products(uint32_t a, uint32_t b, int32_t c, bool a_signed) {
  for (int k = 0; k < 32; k += 8) {
    const auto left = static_cast<uint8_t>(a >> k);
    const auto right = static_cast<int8_t>(b >> k);
    c += (a_signed ? static_cast<int8_t>(left) : left) * right;
  }
  return c;
}

}  // namespace emulation

TX_DEVICE int32_t dp4a(uint32_t a, uint32_t b, int32_t c) {
  return emulation::byte_products(a, b, c, true);
}
TX_DEVICE int32_t dp4a_unsigned(uint32_t a, uint32_t b, int32_t c) {
  return emulation::byte_products(a, b, c, false);
}

/// Runs a kernel to its end; cudaErrorInvalidConfiguration for geometries that no GPU takes.
template <class Kernel>
cudaError_t launch(const typename Kernel::Params& p, const Launch& at, cudaStream_t) noexcept {
  static_assert(Kernel::kThreads % emulation::kWarp == 0 && Kernel::kThreads <= 1024);
  static_assert(std::is_trivially_copyable_v<typename Kernel::Params> &&
                sizeof(typename Kernel::Params) <= 4096);
  if (at.blocks < 1 || at.rows < 1) return cudaSuccess;  // nothing to do
  const emulation::Entry entry = [](const void* params, const emulation::Place& place) {
    Kernel::run(*static_cast<const typename Kernel::Params*>(params), Thread{place});
  };
  return emulation::run(entry, &p, at, Kernel::kThreads);
}

inline cudaError_t zero(void* data, size_t bytes, cudaStream_t) noexcept {
  if (bytes > 0) std::memset(data, 0, bytes);
  return cudaSuccess;
}

}  // namespace torchext::cuda
