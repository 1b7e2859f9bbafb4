#include <algorithm>
#include <climits>
#include <utility>

#include "bins.h"
#include "float_keys.h"
#include "key_passes.h"

namespace torchext::levels {
namespace {

constexpr size_t kChunk = size_t{1} << 23;  // most values that the packed sums can take
constexpr uint32_t kNoItem = UINT32_MAX;

/// Sorts the keys of a bin, which differ in the last `shift` bits only: by counting where there are
/// more of them than such bits can tell apart, as in data with few distinct values.
void sort_bin(uint32_t* keys, size_t n, uint32_t shift, std::vector<uint32_t>* counts) {
  if (std::is_sorted(keys, keys + n)) return;
  const size_t distinct = size_t{1} << shift;
  if (n < distinct) {
    std::sort(keys, keys + n);
    return;
  }
  const uint32_t mask = static_cast<uint32_t>(distinct) - 1, start = *keys & ~mask;
  counts->assign(distinct, 0);
  for (size_t i = 0; i < n; ++i) ++(*counts)[keys[i] & mask];
  for (uint32_t low = 0; low <= mask; ++low) keys = std::fill_n(keys, (*counts)[low], start | low);
}

}  // namespace

FloatBins::FloatBins(const float* x, size_t n, size_t least, size_t most, bool pad)
    : values_(take_out_common(x, n)), n_(n), map_(new uint32_t[kCoarseBins]) {
  std::vector<uint32_t> counts(kCoarseBins, 0);
  uint32_t lowest = UINT32_MAX, highest = 0;
  key_passes().count(values_.x, values_.n, counts.data(), &lowest, &highest);
  for (const Run& run : values_.runs) {
    const uint32_t key = key_of(run.value);
    lowest = std::min(lowest, key);
    highest = std::max(highest, key);
    counts[key >> 16] += static_cast<uint32_t>(run.copies);
  }
  // Infinities and NaN have the keys beyond those of finite values, on either side.
  finite_ = lowest > key_of(-HUGE_VALF) && highest < key_of(HUGE_VALF);
  if (!finite_) return;
  const size_t spread = n - *std::max_element(counts.begin(), counts.end());
  choose_widths(counts, lowest >> 16, highest >> 16, std::clamp(spread / 16, least, most));
  make_axis(sum_bins(), value_of(lowest), value_of(highest), pad);
}

void FloatBins::choose_widths(const std::vector<uint32_t>& counts, uint32_t lowest,
                              uint32_t highest, size_t most) {
  std::vector<CutRule> rules;
  int level = INT_MAX, finest = INT_MIN;
  for (uint32_t h = lowest; h <= highest; ++h) {
    if (counts[h] == 0) continue;
    const CutRule rule = cut_rule(h, counts[h]);
    used_.push_back({h, 0, 0});
    rules.push_back(rule);
    level = std::min(level, -rule.weight);
    finest = std::max(finest, rule.limit - rule.weight);
  }
  while (level < finest) {  // the finest level that does not give too many
    const int middle = level + (finest - level + 1) / 2;
    size_t total = 0;
    for (const CutRule& rule : rules) total += size_t{1} << rule.bits(middle);
    if (total <= most)
      level = middle;
    else
      finest = middle - 1;
  }
  for (size_t i = 0; i < used_.size(); ++i) {
    const int b = rules[i].bits(level);
    used_[i].first_bin = bins_;
    used_[i].shift = static_cast<uint32_t>(16 - b);
    map_[used_[i].upper] = bins_ << 5 | used_[i].shift;
    bins_ += uint32_t{1} << b;
  }
}

std::vector<FloatBins::Moments> FloatBins::sum_bins() const {
  std::vector<Moments> moments(bins_);
  std::vector<uint64_t> sums(2 * size_t{bins_});
  for (size_t begin = 0; begin < values_.n; begin += kChunk) {
    if (begin > 0) std::fill(sums.begin(), sums.end(), 0);
    key_passes().sum(values_.x + begin, std::min(kChunk, values_.n - begin), map_.get(),
                     sums.data());
    for (uint32_t b = 0; b < bins_; ++b)
      moments[b].add({sums[2 * size_t{b}] >> 40, sums[2 * size_t{b}] & (kOneKey - 1),
                      sums[2 * size_t{b} + 1]});
  }
  for (const Run& run : values_.runs) {
    const uint32_t key = key_of(run.value);
    const uint64_t offset = key & ((1u << (map_[key >> 16] & 31)) - 1), c = run.copies;
    moments[bin_of(key)].add({c, c * offset, c * offset * offset});
  }
  return moments;
}

void FloatBins::make_axis(const std::vector<Moments>& moments, double least, double most,
                          bool pad) {
  std::vector<std::pair<uint32_t, FloatBin>> held;
  held.reserve(bins_);
  double sum = 0;
  for (const Upper& u : used_) {
    for (uint32_t k = 0; k < 65536u >> u.shift; ++k) {
      const Moments& m = moments[u.first_bin + k];
      if (m.n == 0) continue;
      held.emplace_back(u.first_bin + k, float_bin(u.upper << 16 | k << u.shift, u.shift, m.n,
                                                   m.first, m.second, least, most));
      sum += held.back().second.above(least);
    }
  }
  axis.centre = round_centre(least + sum / static_cast<double>(n_), least, most);
  axis.lo.reserve(held.size() + 2);
  axis.hi.reserve(held.size() + 2);
  axis.cut.reserve(held.size() + 3);
  item_.assign(bins_, kNoItem);
  Cut at;
  const auto add = [&](double lo, double hi) {
    axis.lo.push_back(lo);
    axis.hi.push_back(hi);
    axis.cut.push_back(at);
  };
  for (const auto& [number, bin] : held) {
    if (pad && bin.lo != bin.hi && axis.lo.empty()) add(least, least);
    item_[number] = static_cast<uint32_t>(axis.size());
    add(bin.lo, bin.hi);
    const Cut sums = bin.sums(axis.centre);
    at = {at.w + sums.w, at.s + sums.s, at.q + sums.q};
  }
  if (pad && axis.lo.back() != axis.hi.back()) add(most, most);
  axis.cut.push_back(at);
  axis.binned = true;
  axis.bound_error(static_cast<double>(axis.size()) + 4);
}

void FloatBins::members(const std::vector<uint32_t>& items, std::vector<double>* values,
                        std::vector<size_t>* start) const {
  start->assign(1, 0);
  std::vector<uint32_t> wanted(axis.size(), kNoItem);  // item to place in `items`
  for (size_t k = 0; k < items.size(); ++k) {
    wanted[items[k]] = static_cast<uint32_t>(k);
    const double held = (axis.cut[items[k] + 1].w - axis.cut[items[k]].w).h;
    start->push_back(start->back() + static_cast<size_t>(held));
  }
  // Where the next value of each bin goes; dead bins share a place that is overwritten again and
  // again.
  const size_t total = start->back();
  std::vector<size_t> place(bins_, total);
  std::vector<uint32_t> keys(total + 1);
  std::vector<uint8_t> any(65536, 0);
  for (const Upper& u : used_) {
    for (uint32_t b = u.first_bin; b < u.first_bin + (65536u >> u.shift); ++b) {
      if (item_[b] == kNoItem || wanted[item_[b]] == kNoItem) continue;
      place[b] = (*start)[wanted[item_[b]]];
      any[u.upper] = 1;
    }
  }
  for_keys(values_.x, values_.n, [&](const uint32_t* block, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (!any[block[i] >> 16]) continue;
      size_t& at = place[bin_of(block[i])];
      keys[at] = block[i];
      at += at != total;
    }
  });
  for (const Run& run : values_.runs) {
    const uint32_t key = key_of(run.value);
    size_t& at = place[bin_of(key)];
    if (at == total) continue;
    std::fill_n(keys.begin() + static_cast<std::ptrdiff_t>(at), run.copies, key);
    at += run.copies;
  }
  values->resize(total);
  std::vector<uint32_t> counts;
  for (size_t k = 0; k < items.size(); ++k) {
    uint32_t* const first = keys.data() + (*start)[k];
    const size_t held = (*start)[k + 1] - (*start)[k];
    if (held > 1) sort_bin(first, held, map_[*first >> 16] & 31, &counts);
  }
  for (size_t i = 0; i < total; ++i) (*values)[i] = value_of(keys[i]);
}

}  // namespace torchext::levels
