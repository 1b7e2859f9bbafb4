// The exact solver: prune with lower and upper bounds, split what survives, and prove it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "axis.h"
#include "block_layer.h"
#include "path.h"

namespace torchext::levels {

/// Counters, independent of the machine.
struct Work {
  int64_t entries = 0;  // interval bounds evaluated; a double-double one counts 4
  int64_t rounds = 0;
  int64_t blocks = 0;  // most blocks held at a time, all layers together
  bool fell_back = false;
};

class CoarseToFine {
 public:
  CoarseToFine(Objective objective, int64_t levels);

  /// Blocks of `axis` for every layer: 64 of as many items each (bins are narrow where levels are
  /// dense) and 64 of equal width.
  void start(const Axis& axis);

  /// Prunes and splits until every block is one item, or until entries and blocks have cost
  /// `budget` since the start, or until within(rtol). The blocks that hold an optimum, all optima
  /// if there are several, always survive.
  void refine(const Axis& axis, int64_t budget, double rtol = 0);

  /// Whether the best path is known to cost at most rtol more than the optimum; never if rtol is 0.
  bool within(double rtol) const {
    return rtol > 0 && !best_.empty() && upper_ - lower_ <= rtol * upper_;
  }

  /// Replaces blocks of bins by blocks of the items that the bins became: item b of the old axis is
  /// items [first[b], first[b + 1]) of the new one.
  void reopen(const Axis& old, const std::vector<uint32_t>& first);

  /// Every item inside a surviving block, per layer.
  std::vector<std::vector<uint32_t>> candidates() const;

  /// The best path of block middles so far, its cost, and a lower bound of the optimum.
  const std::vector<uint32_t>& incumbent() const { return best_; }
  double upper() const { return upper_; }
  double lower() const { return lower_; }

  const std::vector<BlockLayer>& layers() const { return layers_; }
  Work work;

 private:
  bool round(const Axis& axis);

  std::vector<BlockLayer> layers_;
  std::vector<uint32_t> best_;
  double upper_, lower_ = 0;
  int64_t spent_ = 0;
  RoundScratch scratch_;
};

}  // namespace torchext::levels
