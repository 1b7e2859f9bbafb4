#include <algorithm>
#include <cmath>

#include "bins.h"
#include "running_pair.h"
#include "tile.h"

namespace torchext::levels {
namespace {

constexpr size_t kRun = 32;
constexpr double kShare = 8;

/// Runs wider than this are taken value by value, as bounds on them would say little. Levels are as
/// dense as the cube root of count x width^2; the limit is kShare times its average over the runs
/// that are not one value. Few runs exceed it.
double widest_run(const double* x, size_t runs) {
  double sum = 0;
  size_t counted = 0;
  for (size_t r = 0; r < runs; ++r) {
    const double width = x[r * kRun + kRun - 1] - x[r * kRun];
    sum += std::cbrt(width * width);
    counted += width > 0;
  }
  return counted > 0 ? std::pow(kShare * sum / static_cast<double>(counted), 1.5) : 0.0;
}

}  // namespace

RunBins::RunBins(const double* x, size_t n) : x_(x) {
  double part[8] = {};
  const size_t whole = n / 8 * 8;
  for (size_t i = 0; i < whole; i += 8)
    for (size_t k = 0; k < 8; ++k) part[k] += x[i + k] - x[0];
  for (size_t i = whole; i < n; ++i) part[0] += x[i] - x[0];
  double sum = 0;
  for (const double p : part) sum += p;
  axis.centre = round_centre(x[0] + sum / static_cast<double>(n), x[0], x[n - 1]);
  // The smallest and the largest value are items of their own.
  const size_t runs = (n - 2) / kRun, rest = 1 + runs * kRun;
  std::vector<double> sums(4 * (runs + kTileRows));
  tile_kernels().run_sums(x + 1, static_cast<int64_t>(runs), axis.centre, sums.data());
  axis.lo.reserve(runs + 3);
  axis.hi.reserve(runs + 3);
  axis.cut.reserve(runs + 4);
  double weight = 0;
  RunningPair sums_below;
  const auto cut = [&] {
    axis.cut.push_back({DD{weight, 0}, {}, {}});
    sums_below.get(&axis.cut.back().s, &axis.cut.back().q);
  };
  const auto add = [&](size_t begin, size_t end, DD s, DD q) {
    const bool joins = !axis.lo.empty() && axis.single(axis.size() - 1) &&
                       axis.lo.back() == x[begin] && x[begin] == x[end - 1];
    if (!joins) {
      axis.lo.push_back(x[begin]);
      axis.hi.push_back(x[end - 1]);
      cut();
      begin_.push_back(begin);
    }
    weight += static_cast<double>(end - begin);
    sums_below.add(s, q);
  };
  const auto add_one = [&](size_t i) {
    const DD t = axis.about(x[i]);
    add(i, i + 1, t, t * t);
  };
  add_one(0);
  const double wide = widest_run(x + 1, runs);
  for (size_t r = 0; r < runs; ++r) {
    const size_t begin = 1 + r * kRun, end = begin + kRun;
    // Beside an atom every step costs much: a bin that held some of it would have a wrong slope.
    const bool beside =
        (r > 0 && x[begin] == x[begin - kRun]) || (r + 1 < runs && x[end - 1] == x[end - 1 + kRun]);
    if (x[end - 1] - x[begin] > wide || (beside && x[begin] != x[end - 1])) {
      for (size_t i = begin; i < end; ++i) add_one(i);
    } else {
      const double* v = sums.data() + 4 * r;
      add(begin, end, {v[0], v[1]}, {v[2], v[3]});
    }
  }
  for (size_t i = rest; i < n; ++i) add_one(i);
  cut();
  begin_.push_back(n);
  axis.binned = true;
  axis.bound_error(static_cast<double>(4 * axis.size() + 16 * kRun));
}

void RunBins::members(const std::vector<uint32_t>& items, std::vector<double>* values,
                      std::vector<size_t>* start) const {
  values->clear();
  start->assign(1, 0);
  for (const uint32_t k : items) {
    values->insert(values->end(), x_ + begin_[k], x_ + begin_[k + 1]);
    start->push_back(values->size());
  }
}

}  // namespace torchext::levels
