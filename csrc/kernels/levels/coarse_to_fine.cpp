#include "coarse_to_fine.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace torchext::levels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kCuts = 64;            // of each kind in the first partition
constexpr size_t kAtoms = 4;         // a level's share of the weight over that of an atom
constexpr int64_t kBlockCost = 128;  // of a block in a round, in entries

}  // namespace

CoarseToFine::CoarseToFine(Objective objective, int64_t levels)
    : layers_(static_cast<size_t>(objective == Objective::stochastic ? levels : levels + 1)),
      upper_(kInfinity) {
  scratch_.objective = objective;
}

void CoarseToFine::start(const Axis& axis) {
  const bool ends = scratch_.objective == Objective::stochastic;
  const auto size = static_cast<uint32_t>(axis.size()), last = ends ? size - 1 : size;
  std::vector<uint32_t> cuts{0};
  const double lo = axis.lo.front(), width = (axis.hi.back() - lo) / kCuts;
  uint32_t value = 0;
  for (int k = 1; k < kCuts; ++k) {
    while (value + 1 < size && axis.lo[value] < lo + width * k) ++value;
    cuts.push_back(static_cast<uint32_t>(uint64_t{size} * static_cast<uint64_t>(k) / kCuts));
    cuts.push_back(value);
  }
  // Values that many share are blocks of their own: next to one the cost of a level has a kink, and
  // no slope fits both sides.
  const double many = axis.total() / static_cast<double>(kAtoms * layers_.size());
  for (uint32_t i = 0; i + 1 < size; ++i)
    if ((axis.cut[i + 1].w - axis.cut[i].w).h > many && axis.single(i)) {
      cuts.push_back(i);
      cuts.push_back(i + 1);
    }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<Block> blocks;
  blocks.reserve(cuts.size());
  for (size_t k = 0; k < cuts.size(); ++k)
    blocks.push_back({cuts[k], k + 1 < cuts.size() ? cuts[k + 1] - 1 : size - 1});
  for (BlockLayer& l : layers_) l.blocks = blocks;
  layers_.front().blocks = {{0, 0}};
  layers_.back().blocks = {{last, last}};
}

void CoarseToFine::refine(const Axis& axis, int64_t budget, double rtol) {
  bool done = false;
  while (!done && !within(rtol)) {
    done = round(axis);
    if (spent_ > budget) {
      work.fell_back = !done;
      break;
    }
  }
}

bool CoarseToFine::round(const Axis& axis) {
  const size_t count = layers_.size();
  ++work.rounds;
  size_t widest = 1, all = 0;
  bool done = true;
  for (size_t i = 0; i < count; ++i) {
    widest = std::max(widest, layers_[i].size());
    all += layers_[i].size();
    for (const Block& b : layers_[i].blocks)
      done = done && b.lo == b.hi && (!axis.binned || b.lo == axis.size() || axis.single(b.lo));
  }
  if (done) return true;  // what is left is for the programme over single values
  work.blocks = std::max(work.blocks, static_cast<int64_t>(all));
  spent_ += kBlockCost * static_cast<int64_t>(all);
  scratch_.axis = &axis;
  for (size_t i = 0; i < count; ++i) layers_[i].fill(scratch_, i == 0);
  double slack = 0, reach_error = 0;
  const auto add = [&](const PassReport& r, double* error) {
    work.entries += r.work;
    spent_ += r.work;
    *error += r.error;
  };
  layers_[0].reach.set(0, {});
  for (size_t i = 1; i < count; ++i)
    add(layers_[i].reach_from(layers_[i - 1], &scratch_), &reach_error);
  const double reached = layers_.back().reach.h[0];
  if (reached < upper_) {
    upper_ = std::max(reached, 0.0);
    best_.resize(count);
    uint32_t k = 0;
    for (size_t i = count; i-- > 0;) {
      best_[i] = layers_[i].blocks[k].middle();
      if (i > 0) k = layers_[i].from[k];
    }
  }
  if (scratch_.objective == Objective::stochastic)
    for (size_t i = 1; i + 1 < count; ++i) layers_[i].set_slopes(scratch_, layers_[i - 1]);
  layers_[0].forward.set(0, {});
  for (size_t i = 1; i < count; ++i)
    add(layers_[i].forward_from(layers_[i - 1], &scratch_), &slack);
  layers_.back().backward.set(0, {});
  for (size_t i = count - 1; i-- > 0;)
    add(layers_[i].backward_from(layers_[i + 1], &scratch_), &slack);
  // Forward and backward together cross every pair of layers once per block, so `slack` counts
  // double.
  slack = slack * row_minima_noise(static_cast<int64_t>(widest)) + reach_error +
          static_cast<double>(count) * 0x1p-50 * upper_;
  const double bound = layers_.back().forward.h[0];
  lower_ = std::max(lower_, bound - slack);
  if (!scratch_.precise && slack > 0.01 * (upper_ - bound)) {
    scratch_.precise = true;  // rounding limits the pruning: this round again, in double-double
    upper_ = kInfinity;
    return false;
  }
  bool split = false;
  for (size_t i = 1; i + 1 < count; ++i) {
    BlockLayer& l = layers_[i];
    std::vector<Block> kept;
    for (size_t k = 0; k < l.size(); ++k) {
      if (l.forward.h[k] + l.backward.h[k] > upper_ + slack) continue;
      const Block b = l.blocks[k];
      if (b.lo == b.hi) {
        kept.push_back(b);
      } else {
        const uint32_t middle = b.lo + (b.hi - b.lo) / 2;
        kept.push_back({b.lo, middle});
        kept.push_back({middle + 1, b.hi});
        split = true;
      }
    }
    l.blocks.swap(kept);
  }
  return !split;
}

void CoarseToFine::reopen(const Axis& old, const std::vector<uint32_t>& first) {
  const bool ends = scratch_.objective == Objective::stochastic;
  for (size_t i = 0; i < layers_.size(); ++i) {
    std::vector<Block> blocks;
    for (const Block& b : layers_[i].blocks) {
      // A break inside a bin may also lie above all of it, which is below the next item.
      const bool inside = i > 0 && b.hi < old.size() && !old.single(b.hi);
      Block now{first[b.lo], ends ? first[b.hi + 1] - 1 : first[inside ? b.hi + 1 : b.hi]};
      if (ends && first[b.hi + 1] == first[b.lo]) now.hi = now.lo;  // one value with the next item
      if (!blocks.empty()) now.lo = std::max(now.lo, blocks.back().hi + 1);
      if (now.lo <= now.hi) blocks.push_back(now);
    }
    layers_[i].blocks.swap(blocks);
  }
}

std::vector<std::vector<uint32_t>> CoarseToFine::candidates() const {
  std::vector<std::vector<uint32_t>> lists(layers_.size());
  for (size_t i = 0; i < layers_.size(); ++i)
    for (const Block& b : layers_[i].blocks)
      for (uint32_t k = b.lo; k <= b.hi; ++k) lists[i].push_back(k);
  return lists;
}

}  // namespace torchext::levels
