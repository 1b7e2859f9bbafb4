// Launch function of exact optimal levels of one large table, by bins that become finer where a
// level may lie; needs no torch.
#pragma once

#include "hist.h"
#include "sorted.h"

namespace torchext::cuda {

constexpr int32_t kMostExactLevels = 256;  // bounds of all layers are kept

/// Where the arrays of a run lie in the workspace, beside those of its first bins.
struct ExactWork {
  /// What the sweeps over the layers, forward and back, have proved.
  struct Sweeps {
    double bound, slack[2];
  };
  struct State {
    int32_t done;            // nothing is left to do
    int32_t items, several;  // several: some item is more than one value
    int32_t dropped;         // some values are not among the items any more
    int32_t whole;           // there are no more items than levels: all of them are kept
    int32_t precise;         // plain double cannot tell what to drop
    int32_t wide, bins;      // items to be split, and into how many
    int32_t finest;          // into how many at most an item is split
    double centre, radius, largest_sum;
    levels::Cut all;                 // sums of all values
    double chain, terms, cut_error;  // terms of the longest sum of a part; and of any sum
    double upper, lower;             // cost of the best levels so far; none cost less than `lower`
    Sweeps sweeps[2];                // in double, in double-double

    /// Whether rounding limits what the sweeps in plain double decide.
    TX_HD_MEMBER bool needs_precision() const {
      const Sweeps& plain = sweeps[0];
      return precise != 0 || plain.slack[0] + plain.slack[1] > 0.01 * (upper - plain.bound);
    }
  };
  /// Values, and bins of them, that may be a level: ascending, with all sums below and above. For
  /// nearest rounding the border between two cells is below the value. Behind the last item:
  /// the largest value, and all sums.
  struct Items {
    double *lo, *hi;
    levels::Cut *below, *above;
    uint32_t* key;  // first of the 2^shift keys of a bin: bit patterns, or places (sorted.h)
    uint8_t* shift;
  };
  /// Items to be split: their keys, how finely, and the first of their bins.
  struct Wide {
    uint32_t* key;
    uint8_t *shift, *fine;
    uint32_t* base;
  };
  HistWork hist;      // of bins of bit patterns; empty where values are sorted
  levels::Cut* part;  // [kMostItems] sums of bins of sorted values
  State* state;
  Items items[2];          // of a round, and of the next
  int32_t *begin, *end;    // [positions] the items among which a level may be
  int32_t* split;          // of an item: its place in `wide`, or kDropped, kKept
  int32_t* first;          // of an item: its first one in the next round; and the number of those
  double *ahead, *behind;  // [positions - 2][items] bounds of all ways to an item, and from it
  Wide wide;
  double* planes;
  uint16_t *arg, *args;
  int32_t* path;
  levels::DD* terms;
  int64_t bytes;
};

constexpr int32_t kDropped = -1, kKept = -2;

/// `positions`: of a path, levels or the borders of cells.
ExactWork exact_work(unsigned char* memory, int32_t positions, bool sorted) noexcept;

/// Levels of n < 2^31 values, at most kMostExactLevels of them (stochastic: 2 or more): the cost of
/// csrc/kernels/levels/solve.h by Method::exact, and its levels unless several sets are optimal to
/// the rounding of double-doubles.
struct ExactLevels {
  HistLevels table;  // its work is work.hist, its x null where values are sorted
  SortedValues sorted;
  ExactWork work;
  double enough;  // the relative gap that ends the search; 0: none
  int32_t round;

  TX_HD_MEMBER bool is_sorted() const { return table.x == nullptr; }
};

/// From the bins of launch_float_bins() or the values of launch_sorted_places(). A round reads all
/// values of bins, and of sorted ones those beside which a level may still be.
cudaError_t launch_exact_levels(ExactLevels p, cudaStream_t stream) noexcept;

/// The second half of a round: drops the items that cannot be a level, splits the others.
cudaError_t launch_split_items(const ExactLevels& p, cudaStream_t stream) noexcept;

/// Of sorted values: the items of the first round, the sums of the bins that items are split into,
/// and the results in the units of the values.
cudaError_t launch_sorted_items(const ExactLevels& p, cudaStream_t stream) noexcept;
cudaError_t launch_sorted_sums(const ExactLevels& p, cudaStream_t stream) noexcept;
cudaError_t launch_sorted_results(const ExactLevels& p, cudaStream_t stream) noexcept;

}  // namespace torchext::cuda
