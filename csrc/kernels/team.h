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
  /// `words`: how many floats every member shows the others.
  explicit Team(int size, int64_t words = 0)
      : size_(size < 1 ? 1 : size),
        lines_(std::max<int64_t>(1, (words + Line::kWords - 1) / Line::kWords)),
        all_(static_cast<size_t>(size_ * lines_)) {}

  int size() const { return size_; }

  /// Word i of a member, for it to write before a barrier and for all to read between that and the
  /// next: the first ones come with the cache line that says it has arrived.
  float& word(int rank, int64_t i) {
    return all_[rank * lines_ + i / Line::kWords].word[i % Line::kWords];
  }

  /// The largest word i of all members, at least 0.
  float peak(int64_t i) {
    float m = 0.0f;
    for (int rank = 0; rank < size_; ++rank) m = std::max(m, word(rank, i));
    return m;
  }

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
  void barrier(int rank) {
    arrive(rank);
    wait(rank);
  }

  /// The first half of a barrier: what the member does before the second, wait(), hides the time
  /// that its word takes to the others.
  void arrive(int rank) {
    std::atomic<uint32_t>& own = phase(rank);
    own.store(own.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }

  void wait(int rank) {
    if (size_ == 1) return;
    const uint32_t now = phase(rank).load(std::memory_order_relaxed);
    const int patience = patience_.load(std::memory_order_relaxed);
    if (!spin(now, patience)) {
      // Somebody lost its processor. Asleep, this member leaves its own to it; spinning or yielding
      // would hold the whole team up until the end of a stranger's time slice. Only where this goes
      // on, as in a team that is larger than the machine, are members soon asleep.
      patience_.store(std::max(patience / 4, kHasty), std::memory_order_relaxed);
      if (sleep(now)) return;
    } else if (patience < kPatient) {
      patience_.store(2 * patience, std::memory_order_relaxed);
    }
    // A member that goes to sleep is counted before it looks at the phases again, and whoever sees
    // them complete has written its own before it looks at the count: one of both sees the other.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_relaxed) != 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
  }

 private:
  /// What one member writes and all read. The number of barriers it has arrived at is its own: a
  /// counter that all write would have to travel to each of them in turn.
  struct alignas(64) Line {
    static constexpr int64_t kWords = 15;
    std::atomic<uint32_t> phase{0};
    float word[kWords] = {};
  };

  std::atomic<uint32_t>& phase(int rank) { return all_[rank * lines_].phase; }

  /// Whether every member has arrived at barrier `now`; some may be at the next one already.
  bool complete(uint32_t now) {
    for (int rank = 0; rank < size_; ++rank) {
      if (static_cast<int32_t>(phase(rank).load(std::memory_order_acquire) - now) < 0) return false;
    }
    return true;
  }

  /// Whether that happened within so many microseconds.
  bool spin(uint32_t now, int patience) {
    for (int i = 0; i < kEager; ++i) {
      if (complete(now)) return true;
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(patience);
    do {
      for (int i = 0; i < 64; ++i) {
        if (complete(now)) return true;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
      }
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }

  /// Until a member that saw the phase complete wakes all; false if it was complete already.
  bool sleep(uint32_t now) {
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const bool early = !complete(now);
    wake_.wait(lock, [&] { return complete(now); });
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    return early;
  }

  // Microseconds. A step takes 5 to 100 of them, a sleep in a virtual machine about 50.
  static constexpr int kPatient = 256, kHasty = 1;

  static constexpr int kEager = 64;  // looks before the first pause, which takes 0.05 us

  const int size_;
  const int64_t lines_;  // of a member
  std::vector<Line> all_;
  std::atomic<int> patience_{kPatient};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
};

/// Part `rank` of `size` near-equal parts of [0, count).
static inline int64_t team_part(int64_t count, int rank, int size) { return count * rank / size; }

}  // namespace torchext
