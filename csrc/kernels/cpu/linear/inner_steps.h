// What the steps of an inner epoch share: rows, random words and changes of the slopes.
#pragma once

#include <vector>

#include "../../linear/inner_loop.h"
#include "../../linear/scratch.h"
#include "../../linear/slope_change.h"

namespace torchext::cpu {
namespace {

/// Words of one draw number, a block of steps at a time: those of elements [first, first + count).
class Words {
 public:
  Words(const InnerLoop& loop, LoopDraw draw, int64_t most)
      : loop_(loop), draw_(draw), words_(most + 2 * kLoopWords) {}

  /// `first` a multiple of 4.
  void fill(LoopWordsFn* draw, int64_t first, int64_t count) {
    const int64_t padded = (count + kLoopWords - 1) / kLoopWords * kLoopWords;
    draw(loop_.key, static_cast<uint64_t>(first / 4), loop_.stream, draw_, padded, words_.data());
  }
  const uint32_t* at(int64_t i) const { return words_.data() + i; }

 private:
  const InnerLoop& loop_;
  LoopDraw draw_;
  Scratch<uint32_t> words_;
};

/// Row numbers of the steps, known some steps ahead. Steps come in order.
class Rows {
 public:
  Rows(const InnerLoop& loop, LoopWordsFn* draw)
      : loop_(loop), draw_(draw), words_(loop, kRow, kBlock) {
    read(0);
    read(1);
  }

  /// The row of a step up to kBlock after the one that `next` counted last.
  int64_t operator[](int64_t step) const {
    return rows_[static_cast<uint64_t>(step) % static_cast<uint64_t>(2 * kBlock)];
  }

  /// What step t fetches of rows of `bytes` each, a multiple of 64.
  RowsAhead ahead(int64_t t, const uint8_t* x, int64_t bytes) const {
    constexpr int64_t kLead = 5;  // the next row is read a step early
    const int64_t part = t % kStreams, first = t - part + kLead;
    RowsAhead a;
    a.near = bytes <= kNearRow;
    for (int i = 0; i < kStreams; ++i) {
      a.stream[i] = x + (*this)[first + i] * bytes + bytes / 64 * part / kStreams * 64;
    }
    return a;
  }

  /// To be called once a step.
  void next(int64_t step) {
    if (step > 0 && step % kBlock == 0) read(step / kBlock + 1);
  }

 private:
  static constexpr int64_t kBlock = kLoopWords;

  void read(int64_t block) {
    words_.fill(draw_, block * kBlock, kBlock);
    for (int64_t i = 0; i < kBlock; ++i) {
      const auto wide = static_cast<uint64_t>(*words_.at(i)) * static_cast<uint64_t>(loop_.rows);
      rows_[(block % 2) * kBlock + i] = static_cast<int64_t>(wide >> 32);
    }
  }

  const InnerLoop& loop_;
  LoopWordsFn* draw_;
  Words words_;
  int64_t rows_[2 * kBlock];
};

/// Changes of the slopes of one row, its weight included, from the moved scores.
class Changes {
 public:
  explicit Changes(const InnerLoop& loop)
      : loop_(loop),
        size_(slope_cache_size(loop.loss, loop.outputs)),
        moved(static_cast<size_t>(loop.outputs)),
        change(static_cast<size_t>(loop.outputs)) {}

  /// Fetches what is cached for a later row.
  void fetch(int64_t row) const {
    if (size_ > 0) __builtin_prefetch(loop_.cache + row * size_, 0, 3);
    if (loop_.weight != nullptr) __builtin_prefetch(loop_.weight + row, 0, 3);
  }

  void form(int64_t row) {
    slope_change(loop_.loss, loop_.outputs, loop_.cache + row * size_, moved.data(), change.data());
    if (loop_.weight == nullptr) return;
    for (float& c : change) c *= loop_.weight[row];
  }

 private:
  const InnerLoop& loop_;
  int64_t size_;

 public:
  std::vector<float> moved, change;
};

}  // namespace
}  // namespace torchext::cpu
