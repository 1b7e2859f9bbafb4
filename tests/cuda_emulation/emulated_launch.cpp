// Fibers that stand for the threads of a CUDA block.
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/launch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace torchext::cuda::emulation {
namespace {

constexpr size_t kStack = 128 * 1024;
constexpr size_t kMostShared = 227 * 1024;  // of a block on sm_90

enum class State { ready, at_sync, at_exchange, done };

struct Fiber {
  ucontext_t context{};
  std::unique_ptr<unsigned char[]> stack;
  State state = State::done;
  Place place{};
  int turn = 0;  // which of the warp's two buffers the next exchange uses
};

[[noreturn]] void die(const char* what, const Place& place) {
  std::fprintf(stderr, "CUDA emulation: %s (block %lld of row %lld)\n", what,
               static_cast<long long>(place.block), static_cast<long long>(place.row));
  std::abort();
}

}  // namespace

class Block {
 public:
  Block(Entry entry, const void* params, int threads)
      : entry_(entry),
        params_(params),
        fibers_(static_cast<size_t>(threads)),
        slots_(static_cast<size_t>(threads) * 2) {
    // Not zeroed: that would touch megabytes of pages for every launch.
    for (Fiber& f : fibers_) f.stack.reset(new unsigned char[kStack]);
  }

  void run(const Place& place, bool backwards) {
    const auto count = static_cast<int>(fibers_.size());
    for (int k = 0; k < count; ++k) start(k, place);
    for (int running = count; running > 0;) {
      for (int k = 0; k < count; ++k) {
        const int chosen = backwards ? count - 1 - k : k;
        if (fiber(chosen).state != State::ready) continue;
        resume(chosen);
        running -= fiber(chosen).state == State::done;
      }
      if (!release() && running > 0) die("some threads never reach a barrier", place);
    }
  }

  void wait(State at) {
    Fiber& f = fiber(current_);
    f.state = at;
    leave(f);
  }

  const uint64_t* exchange(uint64_t value) {
    const int me = current_;
    Fiber& f = fiber(me);
    const int turn = f.turn;
    f.turn ^= 1;
    uint64_t* slots = slots_.data() + static_cast<size_t>(me / kWarp) * 2 * kWarp +
                      static_cast<size_t>(turn) * kWarp;
    slots[me % kWarp] = value;
    wait(State::at_exchange);
    return slots;
  }

 private:
  Fiber& fiber(int k) { return fibers_[static_cast<size_t>(k)]; }

  void start(int k, const Place& place) {
    Fiber& f = fiber(k);
    f.place = place;
    f.place.fibers = this;
    f.place.thread = k;
    f.place.threads = static_cast<int>(fibers_.size());
    f.state = State::ready;
    f.turn = 0;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = kStack;
    f.context.uc_link = nullptr;
    makecontext(&f.context, &Block::body, 0);
  }

  static void body() {
    Block& block = *active_;
    entered();
    Fiber& f = block.fiber(block.current_);
    block.entry_(block.params_, f.place);
    f.state = State::done;
    block.leave(f);
  }

  void resume(int k) {
    active_ = this;
    current_ = k;
#if defined(__SANITIZE_ADDRESS__)
    void* kept = nullptr;
    __sanitizer_start_switch_fiber(&kept, fiber(k).stack.get(), kStack);
#endif
    swapcontext(&scheduler_, &fiber(k).context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(kept, nullptr, nullptr);
#endif
  }

  void leave(Fiber& f) {
#if defined(__SANITIZE_ADDRESS__)
    void* kept = nullptr;
    __sanitizer_start_switch_fiber(f.state == State::done ? nullptr : &kept, scheduler_stack_,
                                   scheduler_size_);
#endif
    swapcontext(&f.context, &scheduler_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(kept, nullptr, nullptr);
#endif
  }

  static void entered() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &active_->scheduler_stack_, &active_->scheduler_size_);
#endif
  }

  /// Lets go of the barriers at which every thread that still runs has arrived.
  bool release() {
    bool any = release(0, fibers_.size(), State::at_sync);
    for (size_t first = 0; first < fibers_.size(); first += kWarp)
      any = release(first, first + kWarp, State::at_exchange) || any;
    return any;
  }

  bool release(size_t first, size_t end, State at) {
    bool any = false;
    for (size_t k = first; k < end; ++k) {
      if (fibers_[k].state != at && fibers_[k].state != State::done) return false;
      // A GPU leaves the value of a lane that has returned undefined.
      if (at == State::at_exchange && fibers_[k].state == State::done) return false;
      any = any || fibers_[k].state == at;
    }
    for (size_t k = first; k < end && any; ++k)
      if (fibers_[k].state == at) fibers_[k].state = State::ready;
    return any;
  }

  static thread_local Block* active_;
  Entry entry_;
  const void* params_;
  std::vector<Fiber> fibers_;
  std::vector<uint64_t> slots_;  // of each warp: two buffers of 32 words
  ucontext_t scheduler_{};
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_size_ = 0;
  int current_ = 0;
};

thread_local Block* Block::active_ = nullptr;

void sync(Block& block) { block.wait(State::at_sync); }

const uint64_t* exchange(Block& block, uint64_t value) { return block.exchange(value); }

cudaError_t run(Entry entry, const void* params, const Launch& at, int threads) noexcept {
  if (at.blocks > 0x7FFFFFFF || at.rows > 65535 || at.shared > kMostShared)
    return cudaErrorInvalidConfiguration;
  // Kernels of one block would only run forwards: every other launch turns all blocks around.
  static thread_local int64_t launches = 0;
  const int64_t flip = launches++;
  Block block(entry, params, threads);
  for (int64_t row = 0; row < at.rows; ++row) {
    for (int64_t b = 0; b < at.blocks; ++b) {
      // Freshly allocated for each block and filled with a pattern: nothing may be left from
      // before.
      const auto shared = std::make_unique<unsigned char[]>(at.shared + 16);
      std::memset(shared.get(), 0xA5, at.shared + 16);
      auto* aligned = shared.get() + (16 - reinterpret_cast<uintptr_t>(shared.get()) % 16) % 16;
      block.run(Place{nullptr, b, at.blocks, row, at.rows, 0, 0, aligned},
                (b + row + flip) % 2 == 1);
    }
  }
  return cudaSuccess;
}

}  // namespace torchext::cuda::emulation
