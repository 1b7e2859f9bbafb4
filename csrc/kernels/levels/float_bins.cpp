#include <algorithm>
#include <cmath>
#include <cstring>

#include "bins.h"

namespace torchext::levels {
namespace {

constexpr size_t kBlock = 1024;               // keys computed at a time
constexpr size_t kChunk = size_t{1} << 23;    // most values that the packed sums can take
constexpr uint64_t kOne = uint64_t{1} << 40;  // a count, above the sum of offsets
constexpr uint32_t kNoItem = UINT32_MAX, kNoBin = UINT32_MAX;

/// Keys have the order of the values; -0.0 has the key of +0.0.
uint32_t key_of(float x) {
  const float positive_zero = x + 0.0f;
  uint32_t u;
  std::memcpy(&u, &positive_zero, sizeof u);
  return u ^ (static_cast<uint32_t>(static_cast<int32_t>(u) >> 31) | 0x80000000u);
}

double value_of(uint32_t key) {
  const uint32_t u = key & 0x80000000u ? key ^ 0x80000000u : ~key;
  float x;
  std::memcpy(&x, &u, sizeof x);
  return static_cast<double>(x);
}

/// Calls visit(keys, count) for four parts of x in turn, a block at a time: in sorted data the same
/// bin would otherwise be updated again before it has been written.
template <class Visit>
void for_keys(const float* x, size_t n, const Visit& visit) {
  constexpr size_t kStreams = 4, kEach = kBlock / kStreams;
  uint32_t keys[kBlock];
  const size_t part = n / kBlock * kEach;  // whole blocks
  for (size_t at = 0; at < part; at += kEach) {
    for (size_t k = 0; k < kStreams; ++k) {
      const float* from = x + k * part + at;
      for (size_t i = 0; i < kEach; ++i) keys[i + k * kEach] = key_of(from[i]);
    }
    uint32_t mixed[kBlock];
    for (size_t i = 0; i < kEach; ++i)
      for (size_t k = 0; k < kStreams; ++k) mixed[kStreams * i + k] = keys[i + k * kEach];
    visit(mixed, kBlock);
  }
  for (size_t at = kStreams * part; at < n; at += kBlock) {
    const size_t count = std::min(kBlock, n - at);
    for (size_t i = 0; i < count; ++i) keys[i] = key_of(x[at + i]);
    visit(keys, count);
  }
}

int log2_floor(uint64_t n) { return 63 - __builtin_clzll(n); }

}  // namespace

FloatBins::FloatBins(const float* x, size_t n, size_t most, bool pad)
    : x_(x), n_(n), map_(65536, kNoBin) {
  std::vector<uint64_t> counts(65536, 0);
  uint32_t lowest = UINT32_MAX, highest = 0;
  for_keys(x, n, [&](const uint32_t* keys, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      lowest = std::min(lowest, keys[i]);
      highest = std::max(highest, keys[i]);
    }
    for (size_t i = 0; i < count; ++i) ++counts[keys[i] >> 16];
  });
  choose_widths(counts, most);
  std::vector<uint64_t> held, first, second;
  sum_bins(&held, &first, &second);
  make_axis(held, first, second, lowest, highest, pad);
}

void FloatBins::choose_widths(const std::vector<uint64_t>& counts, size_t most) {
  std::vector<uint32_t> used;
  std::vector<int> weight, limit;
  for (uint32_t h = 0; h < 65536; ++h) {
    if (counts[h] == 0) continue;
    // log2 of count x width^2, in thirds rounded down: integers, the same on every machine.
    int exponent;
    std::frexp(value_of(h << 16 | 1) - value_of(h << 16), &exponent);
    const int log_count = log2_floor(counts[h]), thirds = log_count + 2 * exponent;
    used.push_back(h);
    weight.push_back(thirds >= 0 ? thirds / 3 : -((-thirds + 2) / 3));
    limit.push_back(std::min(16, log_count + 2));
  }
  const auto bits = [&](size_t i, int level) { return std::clamp(weight[i] + level, 0, limit[i]); };
  int level = -*std::max_element(weight.begin(), weight.end());
  for (;; ++level) {  // one more level doubles nearly all of them
    size_t total = 0;
    bool grows = false;
    for (size_t i = 0; i < used.size(); ++i) {
      total += size_t{1} << bits(i, level + 1);
      grows = grows || bits(i, level + 1) < limit[i];
    }
    if (total > most) break;
    if (!grows) {
      ++level;
      break;
    }
  }
  for (size_t i = 0; i < used.size(); ++i) {
    const int b = bits(i, level);
    map_[used[i]] = bins_ << 5 | static_cast<uint32_t>(16 - b);
    bins_ += uint32_t{1} << b;
  }
}

void FloatBins::sum_bins(std::vector<uint64_t>* held, std::vector<uint64_t>* first,
                         std::vector<uint64_t>* second) const {
  std::vector<uint64_t> sums(2 * size_t{bins_});
  const bool chunks = n_ > kChunk;
  if (chunks)
    for (auto* v : {held, first, second}) v->assign(bins_, 0);
  for (size_t begin = 0; begin < n_; begin += kChunk) {
    if (begin > 0) std::fill(sums.begin(), sums.end(), 0);
    for_keys(x_ + begin, std::min(kChunk, n_ - begin), [&](const uint32_t* keys, size_t count) {
      for (size_t i = 0; i < count; ++i) {
        const uint32_t entry = map_[keys[i] >> 16], shift = entry & 31, low = keys[i] & 0xFFFF;
        uint64_t* sum = sums.data() + 2 * size_t{(entry >> 5) + (low >> shift)};
        const uint64_t offset = low & ((1u << shift) - 1);
        sum[0] += kOne + offset;
        sum[1] += offset * offset;
      }
    });
    if (!chunks) {
      for (auto* v : {held, first, second}) v->resize(bins_);
    }
    for (uint32_t b = 0; b < bins_; ++b) {
      (*held)[b] = (chunks ? (*held)[b] : 0) + (sums[2 * size_t{b}] >> 40);
      (*first)[b] = (chunks ? (*first)[b] : 0) + (sums[2 * size_t{b}] & (kOne - 1));
      (*second)[b] = (chunks ? (*second)[b] : 0) + sums[2 * size_t{b} + 1];
    }
  }
}

void FloatBins::make_axis(const std::vector<uint64_t>& held, const std::vector<uint64_t>& first,
                          const std::vector<uint64_t>& second, uint32_t lowest, uint32_t highest,
                          bool pad) {
  struct Bin {
    double lo, hi, start, unit, n, s;
    uint64_t q;
  };
  std::vector<Bin> found;
  item_.assign(bins_, kNoItem);
  const double least = value_of(lowest), most = value_of(highest);
  double sum = 0;
  for (uint32_t h = 0; h < 65536; ++h) {
    if (map_[h] == kNoBin) continue;
    const uint32_t begin = map_[h] >> 5, shift = map_[h] & 31;
    const double unit = value_of(h << 16 | 1) - value_of(h << 16);
    for (uint32_t k = 0; k < 65536u >> shift; ++k) {
      const uint32_t b = begin + k;
      if (held[b] == 0) continue;
      const double start = value_of(h << 16 | k << shift);
      Bin bin{
          start,    start, start, unit, static_cast<double>(held[b]), static_cast<double>(first[b]),
          second[b]};
      // All offsets are equal if and only if n sum m^2 = (sum m)^2.
      using Wide = unsigned __int128;
      if (Wide{held[b]} * second[b] == Wide{first[b]} * first[b]) {
        const auto offset = first[b] / held[b];  // exact
        bin.lo = bin.hi = start + unit * static_cast<double>(offset);
      } else {
        bin.lo = std::max(start, least);
        bin.hi = std::min(start + unit * static_cast<double>((1u << shift) - 1), most);
      }
      sum += bin.n * (start - least) + unit * bin.s;
      item_[b] = static_cast<uint32_t>(found.size());
      found.push_back(bin);
    }
  }
  const bool before = pad && found.front().lo != found.front().hi,
             after = pad && found.back().lo != found.back().hi;
  const size_t size = found.size() + before + after;
  axis.lo.resize(size);
  axis.hi.resize(size);
  axis.cut.assign(size + 1, Cut{});
  held_.assign(size, 0);
  axis.centre = round_centre(least + sum / static_cast<double>(n_), least, most);
  size_t i = 0;
  Cut at;
  if (before) axis.lo[i] = axis.hi[i] = least, ++i;
  for (const Bin& b : found) {
    axis.cut[i] = at;
    axis.lo[i] = b.lo;
    axis.hi[i] = b.hi;
    held_[i] = static_cast<uint64_t>(b.n);
    ++i;
    // Values start + unit m: sums of (t + unit m)^k with t = start - centre.
    const DD t = axis.about(b.start), nt = DD{b.n, 0} * t;
    const double rest = static_cast<double>(b.q >> 32) * 0x1p32;
    const DD squares =
        two_sum(rest * b.unit * b.unit, static_cast<double>(b.q & 0xFFFFFFFFu) * b.unit * b.unit);
    const double s = b.unit * b.s;
    at = {at.w + DD{b.n, 0}, at.s + (nt + DD{s, 0}), at.q + (t * (nt + DD{2 * s, 0}) + squares)};
  }
  axis.cut[i] = at;
  if (after) {
    axis.lo[i] = axis.hi[i] = most;
    axis.cut[i + 1] = at;
  }
  if (before)
    for (uint32_t& k : item_) k += k != kNoItem;
  axis.binned = true;
  axis.bound_error(static_cast<double>(size) + 4);
}

void FloatBins::members(const std::vector<uint32_t>& items, std::vector<double>* values,
                        std::vector<size_t>* start) const {
  start->assign(1, 0);
  std::vector<uint32_t> wanted(axis.size(), kNoItem);  // item to place in `items`
  for (size_t k = 0; k < items.size(); ++k) {
    wanted[items[k]] = static_cast<uint32_t>(k);
    start->push_back(start->back() + held_[items[k]]);
  }
  // Where the next value of each bin goes; dead bins share a place that is overwritten again and
  // again.
  const size_t total = start->back();
  std::vector<size_t> place(bins_, total);
  std::vector<uint32_t> keys(total + 1);
  std::vector<uint8_t> any(65536, 0);
  for (uint32_t h = 0; h < 65536; ++h) {
    if (map_[h] == kNoBin) continue;
    const uint32_t begin = map_[h] >> 5, count = 65536u >> (map_[h] & 31);
    for (uint32_t b = begin; b < begin + count; ++b) {
      if (item_[b] == kNoItem || wanted[item_[b]] == kNoItem) continue;
      place[b] = (*start)[wanted[item_[b]]];
      any[h] = 1;
    }
  }
  for_keys(x_, n_, [&](const uint32_t* block, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (!any[block[i] >> 16]) continue;
      size_t& at = place[bin_of(block[i])];
      keys[at] = block[i];
      at += at != total;
    }
  });
  values->resize(total);
  for (size_t k = 0; k < items.size(); ++k) {
    std::sort(keys.begin() + static_cast<std::ptrdiff_t>((*start)[k]),
              keys.begin() + static_cast<std::ptrdiff_t>((*start)[k + 1]));
  }
  for (size_t i = 0; i < total; ++i) (*values)[i] = value_of(keys[i]);
}

}  // namespace torchext::levels
