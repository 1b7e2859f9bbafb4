#include "kernels/column_levels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace torchext::cpu {
namespace {

constexpr int64_t kPilotRows = 512;  // rows that place a column's bins

uint32_t word_of(float x) {
  uint32_t word;
  std::memcpy(&word, &x, sizeof word);
  return word;
}

float float_of(uint32_t word) {
  float x;
  std::memcpy(&x, &word, sizeof x);
  return x;
}

float scaled(const Sample& s, int64_t i, int64_t col, double mean, double inverse) {
  const int64_t row = s.index != nullptr ? s.index[i] : i, at = row * s.row_stride + col;
  const double x = s.f64 ? static_cast<const double*>(s.x)[at] : static_cast<const float*>(s.x)[at];
  return static_cast<float>((x - mean) * inverse);
}

/// Places the bins of column number j of a map.
void place_column(const Sample& s, int64_t col, int64_t j, float lo, float hi,
                  std::vector<float>* pilot, HistogramMap* map) {
  const int64_t count = std::min(kPilotRows, s.rows);
  pilot->resize(count);
  for (int64_t i = 0; i < count; ++i)
    (*pilot)[i] = scaled(s, i * s.rows / count, col, map->mean[j], map->inverse[j]);
  const int64_t middle = count / 2, upper = count - 1 - count / 4, lower = count / 4;
  const auto rank = [pilot](int64_t from, int64_t k, int64_t to) {
    std::nth_element(pilot->begin() + from, pilot->begin() + k, pilot->begin() + to);
    return (*pilot)[k];
  };
  const float center = rank(0, middle, count);  // parts the others: they are sought on either side
  const float high_quarter = upper > middle ? rank(middle + 1, upper, count) : (*pilot)[upper];
  const float low_quarter = lower < middle ? rank(0, lower, middle) : (*pilot)[lower];
  const float spread = high_quarter - low_quarter;
  const float below = center - lo, above = hi - center, reach = std::max(below, above);
  // Not below 2^-20 of the range: more octaves than that would starve the others of bins.
  const float c = std::max(spread / 2.0f, std::max(reach, 0x1p-100f) * 0x1p-20f);
  uint32_t shift = 8, low = 0, high = 0;
  for (;; ++shift) {
    const uint32_t base = word_of(c) >> shift;
    low = (word_of(std::max(below, 0.0f) + c) >> shift) - base + 1;
    high = (word_of(std::max(above, 0.0f) + c) >> shift) - base + 1;
    if (low + high <= map->bins || shift == 23) break;
  }
  map->center[j] = center;
  map->c[j] = c;
  map->shift[j] = shift;
  map->base[j] = word_of(c) >> shift;
  map->origin[j] = low;
  map->rest[j] = (1u << shift) - 1;
  map->under[j] = low - 1;
  map->over[j] = map->bins - 1 - low;
  map->turn[j] = map->under[j] ^ map->over[j];
}

/// The populated bins of one column.
void collect(const HistogramMap& map, int64_t j, const int64_t* counts, const int64_t* sums,
             Bins* s) {
  for (auto* values : {&s->value, &s->width, &s->count, &s->sum, &s->square})
    values->resize(map.bins + 1);
  double count = 0, sum = 0, square = 0;
  s->count[0] = s->sum[0] = s->square[0] = 0;
  int64_t used = 0;
  for (uint32_t b = 0; b < map.bins; ++b) {
    if (counts[b] == 0) continue;
    const auto here = static_cast<double>(counts[b]), rest = static_cast<double>(sums[b]);
    const bool below = b < map.origin[j];
    const uint32_t word = (map.base[j] + (below ? map.origin[j] - 1 - b : b - map.origin[j]))
                          << map.shift[j];
    const double start = float_of(word), ulp = static_cast<double>(float_of(word + 1)) - start;
    const double away = start + rest / here * ulp - static_cast<double>(map.c[j]);
    const double value = static_cast<double>(map.center[j]) + (below ? -away : away);
    s->width[used] = ulp * static_cast<double>(map.rest[j]);
    s->value[used++] = value;
    s->count[used] = count += here;
    s->sum[used] = sum += here * value;
    s->square[used] = square += here * value * value;
  }
  s->value.resize(used);
}

/// Counts at most kHistogramRows rows [first, last) into s->packed, from 0.
void count_packed(const Sample& sample, int64_t first, int64_t last, ColumnStrip strip,
                  const HistogramMap* maps, LevelScratch* s) {
  constexpr int64_t kRows = 512;  // the parts of a strip find the same pages
  const int64_t bins = maps[0].bins;
  s->packed.assign(kLevelColumns * bins, 0);
  for (int64_t row = first; row < last; row += kRows) {
    for (int64_t k = 0; k < strip.cols; k += kHistogramColumns) {
      histogram_kernel()(sample, row, std::min(row + kRows, last), strip.col + k,
                         std::min(strip.cols - k, kHistogramColumns), maps[k / kHistogramColumns],
                         s->packed.data() + k * bins);
    }
  }
}

void unpack(const uint64_t* packed, int64_t n, int64_t* count, int64_t* sum) {
  for (int64_t i = 0; i < n; ++i) {
    count[i] += static_cast<int64_t>(packed[i] >> 40);
    sum[i] += static_cast<int64_t>(packed[i] & ((uint64_t{1} << 40) - 1));
  }
}

/// Levels of column number j of a strip.
void search_column(ColumnStrip strip, int64_t j, const HistogramMap* maps, const int64_t* count,
                   const int64_t* sum, const LevelSearch& search, LevelScratch* s) {
  collect(maps[j / kHistogramColumns], j % kHistogramColumns, count, sum, &s->column);
  for (size_t k = 0; k < search.kinds.size(); ++k) {
    const int64_t col = strip.col + j, at = static_cast<int64_t>(k) * search.all + col,
                  levels = search.levels;
    float* level = search.out + at * levels;
    const int64_t used = find_levels(s->column, search.bounds + 2 * col, levels, search.kinds[k],
                                     search.iterations, &s->cells, level);
    search.cost[at] = cost_of(s->column, level, used, search.kinds[k]);
    for (int64_t c = used; c < levels; ++c) level[c] = level[used - 1];
  }
}

}  // namespace

void place_bins(const Sample& pilot, ColumnStrip strip, const double* mean, const double* scale,
                const float* bounds, int64_t bins, LevelScratch* s, HistogramMap* maps) {
  for (int64_t k = 0; k < kLevelColumns; ++k) {
    HistogramMap& map = maps[k / kHistogramColumns];
    const int64_t j = k % kHistogramColumns, col = strip.col + k;
    const bool there = k < strip.cols;
    if (j == 0) map = HistogramMap{};
    map.bins = static_cast<uint32_t>(bins);
    map.mean[j] = there ? mean[col] : 0.0;
    map.inverse[j] = there ? 1.0 / scale[col] : 1.0;
    if (there) place_column(pilot, col, j, bounds[2 * col], bounds[2 * col + 1], &s->pilot, &map);
  }
}

void count_rows(const Sample& sample, ColumnStrip strip, const HistogramMap* maps, LevelScratch* s,
                int64_t* count, int64_t* sum) {
  for (int64_t first = 0; first < sample.rows; first += kHistogramRows) {
    count_packed(sample, first, std::min(first + kHistogramRows, sample.rows), strip, maps, s);
    unpack(s->packed.data(), strip.cols * int64_t{maps[0].bins}, count, sum);
  }
}

void histogram_levels(ColumnStrip strip, const HistogramMap* maps, const int64_t* count,
                      const int64_t* sum, const LevelSearch& search, LevelScratch* s) {
  const int64_t bins = maps[0].bins;
  for (int64_t j = 0; j < strip.cols; ++j)
    search_column(strip, j, maps, count + j * bins, sum + j * bins, search, s);
}

void column_levels(const Sample& sample, ColumnStrip strip, const double* mean, const double* scale,
                   const LevelSearch& search, LevelScratch* s) {
  HistogramMap maps[kStripMaps];
  const int64_t bins = histogram_bins(search.levels);
  place_bins(sample, strip, mean, scale, search.bounds, bins, s, maps);
  const bool once = sample.rows <= kHistogramRows;
  const int64_t room = (once ? 1 : strip.cols) * bins;
  s->count.assign(room, 0);
  s->sum.assign(room, 0);
  int64_t *count = s->count.data(), *sum = s->sum.data();
  if (!once) {
    count_rows(sample, strip, maps, s, count, sum);
    histogram_levels(strip, maps, count, sum, search, s);
    return;
  }
  count_packed(sample, 0, sample.rows, strip, maps, s);
  for (int64_t j = 0; j < strip.cols; ++j) {  // a column's counts stay in the cache
    std::fill_n(count, bins, 0);
    std::fill_n(sum, bins, 0);
    unpack(s->packed.data() + j * bins, bins, count, sum);
    search_column(strip, j, maps, count, sum, search, s);
  }
}

}  // namespace torchext::cpu
