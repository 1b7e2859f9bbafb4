// Many values as few bins with exact sums: what lets the solvers start without a sort.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "axis.h"
#include "common_value.h"

namespace torchext::levels {

/// Bins of some data, and the way back to their values.
class Bins {
 public:
  Axis axis;  // one item per bin that holds anything

  virtual ~Bins() = default;

  /// The values of the listed bins (ascending), bin after bin, each ascending: bin items[k] is
  /// values[start[k]] .. values[start[k + 1] - 1].
  virtual void members(const std::vector<uint32_t>& items, std::vector<double>* values,
                       std::vector<size_t>* start) const = 0;

 protected:
  Bins() = default;
  Bins(const Bins&) = default;
  Bins& operator=(const Bins&) = default;
};

/// Bins of float32 values by their bit pattern. Counts and sums are integers, so any order of the
/// values gives the same bins. A few thousand of them, finer where values are dense or far apart:
/// their number grows with the cube root of count x width^2, as that of the levels does.
class FloatBins : public Bins {
 public:
  /// x [n], n < 2^32; unless all are finite() there are no bins. One bin for 16 values beside those
  /// of the fullest 16-bit pattern, but from about `least` to `most`. `pad`: the smallest and
  /// largest value become items of their own even where they share a bin with others. Two passes
  /// over x, about 3 ns a value.
  FloatBins(const float* x, size_t n, size_t least, size_t most, bool pad);

  bool finite() const { return finite_; }

  void members(const std::vector<uint32_t>& items, std::vector<double>* values,
               std::vector<size_t>* start) const override;

 private:
  /// The keys of one upper half in use: a power of two of bins.
  struct Upper {
    uint32_t upper, first_bin, shift;
  };
  /// Number, sum and sum of squares of the offsets of keys in their bin.
  struct Moments {
    uint64_t n = 0, first = 0, second = 0;

    void add(const Moments& m) {
      n += m.n;
      first += m.first;
      second += m.second;
    }
  };

  /// The coarse bins in use lie from `lowest` to `highest`.
  void choose_widths(const std::vector<uint32_t>& counts, uint32_t lowest, uint32_t highest,
                     size_t most);
  std::vector<Moments> sum_bins() const;
  void make_axis(const std::vector<Moments>& moments, double least, double most, bool pad);
  uint32_t bin_of(uint32_t key) const {
    const uint32_t entry = map_[key >> 16];
    return (entry >> 5) + ((key & 0xFFFF) >> (entry & 31));
  }

  Thinned values_;
  size_t n_;
  bool finite_ = true;
  uint32_t bins_ = 0;
  std::vector<Upper> used_;
  // Per upper half of a key, if in use: number of its first bin << 5 | shift.
  std::unique_ptr<uint32_t[]> map_;
  std::vector<uint32_t> item_;  // bin to item
};

/// Bins of ascending float64 values, n >= 2: runs of 32, longer where they are one value; the
/// smallest and the largest are on their own.
class RunBins : public Bins {
 public:
  RunBins(const double* x, size_t n);

  void members(const std::vector<uint32_t>& items, std::vector<double>* values,
               std::vector<size_t>* start) const override;

 private:
  const double* x_;
  std::vector<size_t> begin_;  // per item, and the end of the last
};

}  // namespace torchext::levels
