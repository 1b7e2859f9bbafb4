// A team of threads that walks through one long kernel in lock step.
//
// A mini-batch step takes microseconds, so its phases are separated by a spinning barrier, not by a
// task queue. Made per call: an epoch is long against thread creation.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace torchext {

class Team {
 public:
  explicit Team(int size) : size_(size < 1 ? 1 : size) {}

  int size() const { return size_; }

  /// Runs body(rank) on every member, rank 0 on the caller's thread; body must not throw.
  template <class Body>
  void run(const Body& body) {
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(size_) - 1);
    for (int rank = 1; rank < size_; ++rank) others.emplace_back([&body, rank] { body(rank); });
    body(0);
    for (std::thread& t : others) t.join();
  }

  /// Returns once every member has arrived; what they wrote before is visible to all.
  void barrier() {
    if (size_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    // Spin for some microseconds; past that a member lost its core, and yielding lets it run.
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
      if (spins < 4096) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  const int size_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

/// Part `rank` of `size` near-equal parts of [0, count).
static inline int64_t team_part(int64_t count, int rank, int size) { return count * rank / size; }

}  // namespace torchext
