#include "kernels/column_levels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace torchext::cpu {
namespace {

constexpr int64_t kPilotRows = 512;  // rows that place a column's bins
constexpr int64_t kMostRuns = 512;   // runs of bins that starts are made of: fewer than twice 256

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

/// Places the bins of column number j of the strip.
void place_bins(const Sample& s, int64_t col, int64_t j, float lo, float hi,
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

/// The populated bins of one column in ascending order, with prefix sums from index 0.
int64_t collect(const HistogramMap& map, int64_t j, const uint64_t* bins, LevelScratch* s) {
  for (auto* values : {&s->value, &s->count, &s->sum, &s->square}) values->resize(map.bins + 1);
  double count = 0, sum = 0, square = 0;
  s->count[0] = s->sum[0] = s->square[0] = 0;
  int64_t used = 0;
  for (uint32_t b = 0; b < map.bins; ++b) {
    if (bins[b] == 0) continue;
    const auto here = static_cast<double>(bins[b] >> 40);
    const auto rest = static_cast<double>(bins[b] & ((uint64_t{1} << 40) - 1));
    const bool below = b < map.origin[j];
    const uint32_t word = (map.base[j] + (below ? map.origin[j] - 1 - b : b - map.origin[j]))
                          << map.shift[j];
    const double start = float_of(word), ulp = static_cast<double>(float_of(word + 1)) - start;
    const double away = start + rest / here * ulp - static_cast<double>(map.c[j]);
    const double value = static_cast<double>(map.center[j]) + (below ? -away : away);
    s->value[used++] = value;
    s->count[used] = count += here;
    s->sum[used] = sum += here * value;
    s->square[used] = square += here * value * value;
  }
  s->value.resize(used);
  return used;
}

/// Squared error of bins [b, e) about their mean.
double spread_of(const LevelScratch& s, int64_t b, int64_t e) {
  const double n = s.count[e] - s.count[b], t = s.sum[e] - s.sum[b];
  return n > 0 ? std::max(0.0, s.square[e] - s.square[b] - t * t / n) : 0.0;
}

/// Lloyd iterations over cells given by their first bins cut[0] = 0 < cut[1] < .. < cut[levels] =
/// bins; returns the squared error. Cells are never empty: a cut always leaves its neighbours a
/// bin.
double iterate(const LevelScratch& s, int64_t levels, int iterations, int64_t* cut) {
  const auto centroid = [&](int64_t c) {
    return (s.sum[cut[c + 1]] - s.sum[cut[c]]) / (s.count[cut[c + 1]] - s.count[cut[c]]);
  };
  const auto bins = static_cast<int64_t>(s.value.size());
  std::vector<int64_t> next(levels);
  for (int step = 0; step < iterations; ++step) {
    bool moved = false;
    double left = centroid(0);
    for (int64_t c = 1; c < levels; ++c) {
      const double right = centroid(c), middle = (left + right) / 2;  // cut[c] is still the old one
      int64_t at = cut[c];  // cuts move by a few bins, so a walk beats a search
      while (at < bins && s.value[at] <= middle) ++at;
      while (at > 0 && s.value[at - 1] > middle) --at;
      next[c] = at;
      left = right;
    }
    for (int64_t c = 1; c < levels; ++c) {
      const int64_t to = std::min(std::max(next[c], cut[c - 1] + 1), bins - (levels - c));
      moved = moved || to != cut[c];
      cut[c] = to;
    }
    if (!moved) break;
  }
  double error = 0;
  for (int64_t c = 0; c < levels; ++c) error += spread_of(s, cut[c], cut[c + 1]);
  return error;
}

/// Cuts at equal steps of the cumulative weight of runs of bins; weight(count, width) of a run.
template <class Weight>
void start_cuts(const LevelScratch& s, int64_t levels, const Weight& weight, int64_t* cut) {
  const auto bins = static_cast<int64_t>(s.value.size());
  const int64_t run = std::max<int64_t>(1, bins / 256);
  const auto width = [&](int64_t b, int64_t e) {
    return s.value[std::min(e, bins - 1)] - s.value[b] +
           (e >= bins ? s.value[bins - 1] - s.value[b - (b > 0)] : 0.0);
  };
  double total = 0, weights[kMostRuns];
  for (int64_t b = 0; b < bins; b += run) {
    const int64_t e = std::min(b + run, bins);
    total += weights[b / run] = weight(s.count[e] - s.count[b], width(b, e));
  }
  double reached = 0;
  int64_t c = 1;
  for (int64_t b = 0; b < bins && c < levels; b += run) {
    const int64_t e = std::min(b + run, bins);
    const double w = weights[b / run];
    while (c < levels &&
           reached + w >= total * static_cast<double>(c) / static_cast<double>(levels)) {
      const double part =
          (total * static_cast<double>(c) / static_cast<double>(levels) - reached) / w;
      cut[c++] = b + static_cast<int64_t>(part * static_cast<double>(e - b));
    }
    reached += w;
  }
  cut[0] = 0;
  cut[levels] = bins;
  for (int64_t k = 1; k < levels; ++k)
    cut[k] = std::min(std::max(cut[k], cut[k - 1] + 1), bins - (levels - k));
}

/// Solves exactly for the bin means; with `ends`, from a value just there to another.
std::vector<double> solve_bins(LevelScratch* s, int64_t levels, levels::Objective objective,
                               const float* ends) {
  const size_t bins = s->value.size();
  s->node = s->value;
  s->weight.resize(bins);
  for (size_t b = 0; b < bins; ++b) s->weight[b] = s->count[b + 1] - s->count[b];
  for (int k = 0; ends != nullptr && k < 2; ++k) {  // the range is that of all rows
    s->node.push_back(ends[k]);
    s->weight.push_back(1e-6);
  }
  return levels::solve(s->node.data(), s->weight.data(), s->node.size(), objective,
                       levels::Method::exact, levels, &s->solver)
      .levels;
}

/// Cells of the bins nearest to each of ascending levels.
void cut_between(const LevelScratch& s, const std::vector<double>& level, int64_t levels,
                 int64_t* cut) {
  const auto bins = static_cast<int64_t>(s.value.size());
  cut[0] = 0;
  cut[levels] = bins;
  for (int64_t c = 1; c < levels; ++c) {
    const auto here = static_cast<size_t>(std::min<int64_t>(c, level.size() - 1));
    const double middle = (level[here - 1] + level[here]) / 2;
    const int64_t at = std::upper_bound(s.value.begin(), s.value.end(), middle) - s.value.begin();
    cut[c] = std::min(std::max(at, cut[c - 1] + 1), bins - (levels - c));
  }
}

}  // namespace

void column_levels(const Sample& sample, int64_t col, int64_t cols, const double* mean,
                   const double* scale, const float* bounds, int64_t levels, ColumnLevels kind,
                   int iterations, LevelScratch* s, float* out) {
  HistogramMap maps[kLevelColumns / kHistogramColumns] = {};
  for (int64_t k = 0; k < kLevelColumns; ++k) {
    HistogramMap& map = maps[k / kHistogramColumns];
    const int64_t j = k % kHistogramColumns;
    map.bins = static_cast<uint32_t>(levels <= 16 ? kHistogramBins / 2 : kHistogramBins);
    map.mean[j] = k < cols ? mean[col + k] : 0.0;
    map.inverse[j] = k < cols ? 1.0 / scale[col + k] : 1.0;
    if (k < cols)
      place_bins(sample, col + k, j, bounds[2 * (col + k)], bounds[2 * (col + k) + 1], &s->pilot,
                 &map);
  }
  const int64_t bins_of = maps[0].bins;  // of a column
  s->bins.assign(kLevelColumns * bins_of, 0);
  constexpr int64_t kRows = 512;  // the parts of a strip find the same pages
  for (int64_t row = 0; row < sample.rows; row += kRows) {
    const int64_t end = std::min(row + kRows, sample.rows);
    for (int64_t k = 0; k < cols; k += kHistogramColumns) {
      histogram_kernel()(sample, row, end, col + k, std::min(cols - k, kHistogramColumns),
                         maps[k / kHistogramColumns], s->bins.data() + k * bins_of);
    }
  }
  std::vector<int64_t> cut(3 * (levels + 1));
  for (int64_t j = 0; j < cols; ++j) {
    const int64_t bins = collect(maps[j / kHistogramColumns], j % kHistogramColumns,
                                 s->bins.data() + j * bins_of, s);
    float* level = out + (col + j) * levels;
    int64_t used = 0;
    const auto put = [&](double value) {
      const auto rounded = static_cast<float>(value);
      if (used == 0 || rounded > level[used - 1]) level[used++] = rounded;
    };
    if (bins <= levels) {
      for (const double value : s->value) put(value);
    } else if (kind == ColumnLevels::stochastic) {
      const float* ends = bounds + 2 * (col + j);
      for (const double value : solve_bins(s, levels, levels::Objective::stochastic, ends))
        put(value);
    } else {
      // Quantiles, and the asymptotically optimal density: the cube root of the data's (here its
      // power 5/16, which IEEE square roots give exactly alike everywhere). The better result
      // counts.
      int64_t *a = cut.data(), *b = a + levels + 1;
      start_cuts(*s, levels, [](double n, double) { return n; }, a);
      start_cuts(
          *s, levels,
          [](double n, double w) {
            const double r = std::sqrt(std::sqrt(n / std::max(w, 1e-30)));
            return r * std::sqrt(std::sqrt(r)) * w;
          },
          b);
      const double error_a = iterate(*s, levels, iterations, a),
                   error_b = iterate(*s, levels, iterations, b);
      const int64_t* best = error_b < error_a ? b : a;
      if (kind == ColumnLevels::nearest) {
        int64_t* exact = b + levels + 1;
        cut_between(*s, solve_bins(s, levels, levels::Objective::nearest, nullptr), levels, exact);
        if (iterate(*s, levels, iterations, exact) < std::min(error_a, error_b)) best = exact;
      }
      for (int64_t c = 0; c < levels; ++c) {
        put((s->sum[best[c + 1]] - s->sum[best[c]]) / (s->count[best[c + 1]] - s->count[best[c]]));
      }
    }
    for (int64_t c = used; c < levels; ++c) level[c] = used > 0 ? level[used - 1] : 0.0f;
  }
}

}  // namespace torchext::cpu
