// One layer of the coarse-to-fine solver: where a level may lie, as blocks of items, and the
// bounds.
//
// Two blocks A before B bound the cost of every interval from an item of A to one of B from below:
// the values inside A and B are ignored and the rest is smallest at a corner, the levels being ends
// of their blocks. A slope per block (any number) keeps the bound second order in the block's
// width: a layer charges slope (v - lo) to the interval that ends at v and gives it back to the one
// that starts there.
#pragma once

#include <cstdint>
#include <vector>

#include "axis.h"
#include "path.h"

namespace torchext::levels {

struct Block {
  uint32_t lo, hi;  // items, both included (nearest: the cuts below them)

  uint32_t middle() const { return lo + (hi - lo) / 2; }
};

/// What every pass of one round needs, and memory that passes share.
struct RoundScratch {
  const Axis* axis = nullptr;
  Objective objective = Objective::stochastic;
  bool precise = false;

  Plane base[2], column_z, row_x, mirrored_column[6], mirrored_row[6], value;
  std::vector<double> ready, end;
  std::vector<uint32_t> arg;
};

/// What one pass reports beside its results.
struct PassReport {
  int64_t work;  // entries evaluated; a double-double one counts 4
  double error;  // bound on the error of one entry
};

class BlockLayer {
 public:
  std::vector<Block> blocks;
  Plane reach;                 // cost of the best path of middles up to each block
  std::vector<uint32_t> from;  // predecessor of each block on it
  Plane forward;               // lower bound of every way from the start to the block
  Plane backward;              // lower bound of every way from the block to the end

  size_t size() const { return blocks.size(); }

  /// What follows from the blocks alone. `start`: the first layer, whose one cut is below
  /// everything.
  void fill(const RoundScratch& s, bool start);

  /// reach and from, given those of the layer before.
  PassReport reach_from(const BlockLayer& before, RoundScratch* s);

  /// Slopes that make the bound touch the cost at the best predecessors (stochastic only).
  void set_slopes(const RoundScratch& s, const BlockLayer& before);

  /// forward, given that of the layer before; backward, given that of the layer after.
  PassReport forward_from(const BlockLayer& before, RoundScratch* s);
  PassReport backward_from(const BlockLayer& after, RoundScratch* s);

 private:
  void fill_ends(const RoundScratch& s);
  void fill_clusters(const RoundScratch& s, bool start);
  PassReport bounds(const BlockLayer& other, const Plane* const* column, const Plane* const* row,
                    Plane* result, RoundScratch* s) const;

  // Ends of an interval at this layer. `out`: left ends (t, Y, G), first the upper end of the
  // block; `in`: right ends (t, X, H), first the lower end. Nearest: W, S, Q of the highest and
  // lowest cut.
  Plane out_[2][3], in_[2][3], middle_[3];
  Plane out_z_, in_z_;  // what the slopes leave of the bound where blocks overlap
  std::vector<double> width_, slope_;
  std::vector<uint32_t> highest_;  // cut above the block
  double scale_ = 0;               // bound on the magnitudes that one end adds to an entry
};

}  // namespace torchext::levels
