// A team of threads that walks through one long kernel in lock step.
//
// A mini-batch step takes microseconds, so its phases are separated by a barrier that spins, not by
// a task queue. Made per call: an epoch is long against thread creation. A team may be larger than
// the machine (members then sleep and take turns), but that is never faster.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace torchext {

class Team {
 public:
  explicit Team(int size) : size_(size < 1 ? 1 : size) {}

  int size() const { return size_; }

  /// Runs body(rank) on every member, rank 0 on the caller's thread; body must not throw. Throws
  /// std::system_error, without having run anything, if the system refuses a thread.
  template <class Body>
  void run(const Body& body) {
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(size_) - 1);
    std::mutex gate;  // held until all members exist: a body alone at a barrier would never return
    bool complete = false;
    const auto member = [&](int rank) {
      {
        const std::lock_guard<std::mutex> open(gate);
        if (!complete) return;
      }
      body(rank);
    };
    std::unique_lock<std::mutex> closed(gate);
    const auto join = [&] {
      closed.unlock();
      for (std::thread& t : others) t.join();
    };
    try {
      for (int rank = 1; rank < size_; ++rank) others.emplace_back(member, rank);
    } catch (const std::system_error&) {
      join();
      throw;
    }
    complete = true;
    closed.unlock();
    body(0);
    for (std::thread& t : others) t.join();
  }

  /// Returns once every member has arrived; what they wrote before is visible to all.
  void barrier() {
    if (size_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1);
      if (sleepers_.load() != 0) {
        const std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
      }
      return;
    }
    const int patience = patience_.load(std::memory_order_relaxed);
    if (spin(phase, patience)) {
      if (patience < kPatient) patience_.store(2 * patience, std::memory_order_relaxed);
      return;
    }
    // Somebody lost its processor. Asleep, this member leaves its own to it; spinning or yielding
    // would hold the whole team up until the end of a stranger's time slice. Only where this goes
    // on, as in a team that is larger than the machine, are members soon asleep.
    patience_.store(std::max(patience / 4, kHasty), std::memory_order_relaxed);
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);  // before the phase is read again: the last to arrive sees one of both
    wake_.wait(lock, [&] { return phase_.load() != phase; });
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }

 private:
  /// Whether the phase ended within so many microseconds.
  bool spin(uint32_t phase, int patience) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(patience);
    do {
      for (int i = 0; i < 64; ++i) {
        if (phase_.load(std::memory_order_acquire) != phase) return true;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
      }
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }

  // Microseconds. A step takes 5 to 100 of them, a sleep in a virtual machine about 50.
  static constexpr int kPatient = 256, kHasty = 1;

  const int size_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  std::atomic<int> patience_{kPatient};
  std::atomic<int> sleepers_{0};  // read only beside a store to phase_
  std::mutex mutex_;
  std::condition_variable wake_;
};

/// Part `rank` of `size` near-equal parts of [0, count).
static inline int64_t team_part(int64_t count, int rank, int size) { return count * rank / size; }

}  // namespace torchext
