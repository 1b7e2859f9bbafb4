// Full passes over tile4 codes, four tiles at a time.
#include "../../linear/code_products.h"

#include <algorithm>
#include <cmath>

#include "../../linear/scratch.h"

namespace torchext::cpu {
namespace {

constexpr int64_t kChunkTiles = 4, kSlabTiles = kSlabRows / kTileRows,
                  kGramTiles = kGramRows / kTileRows;

int64_t groups_of(const CodeMatrix& a) { return (a.data.cols + 3) / 4; }

TileArgs tile_args(const CodeMatrix& a, int vectors) {
  TileArgs t{};
  t.tile_bytes = groups_of(a) * 32 * a.data.bits;
  t.bits = a.data.bits;
  t.table = a.table;
  t.set_bytes = a.set_bytes;
  t.planes = a.planes;
  t.books = 1;
  t.outputs = vectors;
  t.cols = (a.data.cols + 63) / 64 * 64;
  return t;
}

/// Four streams through the chunk `tiles` further on, or through this one at the end. A pass in one
/// direction fetches half of it, and leaves the rest to the processor.
Prefetch chunk_ahead(const TileArgs& t, int64_t tiles, const uint8_t* end) {
  Prefetch f{};
  f.log2_streams = 2;
  const int64_t segment = (t.g1 - t.g0) * 32 * t.bits, chunk = kChunkTiles * t.tile_bytes;
  f.half = (segment / 2 + 127) & ~int64_t{127};
  const uint8_t* later = t.codes + tiles * t.tile_bytes;
  const uint8_t* base = later + chunk <= end ? later : t.codes;
  for (int s = 0; s < 4; ++s)
    f.stream[s] = base + std::min<int64_t>(s, t.tiles - 1) * t.tile_bytes + t.g0 * 32 * t.bits;
  return f;
}

const uint8_t* codes_end(const CodeMatrix& a) { return a.codes + layout_bytes(a.data); }

int64_t tiles_of(const CodeMatrix& a) { return (a.data.rows + kTileRows - 1) / kTileRows; }

/// Integer products of the rows of one chunk become scores.
void put_scores(const RoundedModel& model, const TileArgs& t, const int32_t* dots, int64_t rows,
                float* z, int64_t z_stride) {
  for (int o = 0; o < model.outputs; ++o) {
    const int32_t* d = dots + static_cast<int64_t>(o) * model.count * t.planes * t.rows;
    float* to = z + o * z_stride;
    const double sigma = model.sigma[o], beta = model.beta[o];
    for (int64_t k = 0; k < rows; ++k) {
      double value = 0.0;
      for (int digit = 0; digit < model.count; ++digit) {
        const int32_t* from = d + static_cast<int64_t>(digit) * t.planes * t.rows + k;
        const double part = t.planes == 2 ? from[0] + 256.0 * from[t.rows] : from[0];
        value = 128.0 * value + part;
      }
      to[k] = static_cast<float>(sigma * value + beta);
    }
  }
}

/// Integer column sums of a slab become columns [begin, end) of g.
void add_columns(const CodeMatrix& a, const TileArgs& t, const int32_t* sums, int outputs,
                 int count, const double* scale, const double* total, int64_t begin, int64_t end,
                 double* g, int64_t g_stride) {
  for (int o = 0; o < outputs; ++o) {
    const int32_t* from = sums + static_cast<int64_t>(o) * count * t.planes * t.cols;
    for (int64_t j = begin; j < end; ++j) {
      double value = 0.0;
      for (int digit = 0; digit < count; ++digit) {
        const int32_t* s = from + static_cast<int64_t>(digit) * t.planes * t.cols + j;
        const double part = t.planes == 2 ? s[0] + 256.0 * s[t.cols] : s[0];
        value = 128.0 * value + part;
      }
      g[o * g_stride + j] += scale[o] * (static_cast<double>(a.grid[2 * j]) * total[o] +
                                         static_cast<double>(a.grid[2 * j + 1]) * value);
    }
  }
}

TileArgs forward_args(const CodeMatrix& a, const RoundedModel& model) {
  TileArgs t = tile_args(a, model.outputs * model.count);
  t.g1 = groups_of(a);
  t.cols = model.stride;
  t.rows = kChunkTiles * kTileRows;
  return t;
}

/// Scores of the rows of tiles [begin, end) into z, whose column 0 is the first of them; fetches
/// what is `ahead` tiles further on.
void forward(const CodeMatrix& a, const RoundedModel& model, int64_t begin, int64_t end,
             int64_t ahead, float* z, int64_t z_stride, Scratch<int32_t>& dots) {
  TileArgs t = forward_args(a, model);
  for (int64_t first = begin; first < end; first += kChunkTiles) {
    t.tiles = static_cast<int>(std::min(kChunkTiles, end - first));
    t.codes = a.codes + first * t.tile_bytes;
    sgd_kernels().forward(t, model.digits, dots.data(), chunk_ahead(t, ahead, codes_end(a)));
    const int64_t row = first * kTileRows,
                  rows = std::min<int64_t>(t.tiles * kTileRows, a.data.rows - row);
    put_scores(model, t, dots.data(), rows, z + row - begin * kTileRows, z_stride);
  }
}

/// Integer column sums over tiles [first, end); column 0 of `digits` belongs to the first row of
/// them.
void backward(const CodeMatrix& a, TileArgs t, const int8_t* digits, int64_t first, int64_t end,
              int64_t ahead, Scratch<int32_t>& sums) {
  for (int64_t c = first; c < end; c += kChunkTiles) {
    t.tiles = static_cast<int>(std::min(kChunkTiles, end - c));
    t.codes = a.codes + c * t.tile_bytes;
    sgd_kernels().backward(t, digits + (c - first) * kTileRows, sums.data(), c > first,
                           chunk_ahead(t, ahead, codes_end(a)));
  }
}

int64_t dots_of(const CodeMatrix& a, const RoundedModel& model) {
  return static_cast<int64_t>(model.outputs) * model.count * a.planes * kChunkTiles * kTileRows;
}

}  // namespace

void round_model(const CodeMatrix& a, double* x, int outputs, int count, int64_t stride,
                 int8_t* digits, double* sigma, double* beta) {
  const int64_t n = a.data.cols;
  for (int o = 0; o < outputs; ++o, x += n) {
    double peak = 0.0;
    for (int64_t j = 0; j < n; ++j) peak = std::max(peak, std::fabs(a.grid[2 * j + 1] * x[j]));
    const double scale = peak / top_of_digits(count), inverse = scale > 0.0 ? 1.0 / scale : 0.0;
    double sum = 0.0;
    for (int64_t j = 0; j < n; ++j) {
      const double step = a.grid[2 * j + 1];
      const double r = std::nearbyint(step * x[j] * inverse);
      put_digits(static_cast<int32_t>(r), count, stride, digits + o * count * stride + j);
      if (step > 0.0) x[j] = r * scale / step;  // a column of one value keeps its x
      sum += a.grid[2 * j] * x[j];
    }
    sigma[o] = scale;
    beta[o] = sum;
  }
}

void code_forward(const CodeMatrix& a, const RoundedModel& model, int64_t begin, int64_t end,
                  float* z, int64_t z_stride) {
  Scratch<int32_t> dots(dots_of(a, model));
  forward(a, model, begin, end, kChunkTiles, z + begin * kTileRows, z_stride, dots);
}

void round_rows(const float* e, int64_t e_stride, int64_t rows, int outputs, int count,
                int64_t stride, int8_t* digits, double* scale, double* total) {
  for (int o = 0; o < outputs; ++o) {
    const float* from = e + o * e_stride;
    int8_t* to = digits + static_cast<int64_t>(o) * count * stride;
    float peak = 0.0f;
    for (int64_t k = 0; k < rows; ++k) peak = std::max(peak, std::fabs(from[k]));
    const float top = static_cast<float>(top_of_digits(count));
    const float unit = peak / top, inverse = unit >= 0x1p-126f ? 1.0f / unit : 0.0f;
    int64_t sum = 0;
    for (int64_t k = 0; k < rows; ++k) {
      float r = (from[k] * inverse + 12582912.0f) - 12582912.0f;  // rounds to nearest, ties to even
      r = r < -top ? -top : r > top ? top : r;
      const auto q = static_cast<int32_t>(r);
      put_digits(q, count, stride, to + k);
      sum += q;
    }
    scale[o] = inverse != 0.0f ? static_cast<double>(unit) : 0.0;
    total[o] = static_cast<double>(sum);
  }
}

void code_backward(const CodeMatrix& a, const int8_t* digits, int64_t stride, int outputs,
                   int count, const double* scale, const double* total, int64_t begin, int64_t end,
                   double* g, int64_t g_stride) {
  TileArgs t = tile_args(a, outputs * count);
  t.g0 = begin;
  t.g1 = end;
  t.rows = stride;
  // The kernels address columns from the matrix' first; only this range is touched.
  Scratch<int32_t> sums(static_cast<int64_t>(t.outputs) * t.planes * t.cols);
  const int64_t tiles = tiles_of(a), last = std::min(4 * end, a.data.cols);
  for (int o = 0; o < outputs; ++o)
    std::fill(g + o * g_stride + 4 * begin, g + o * g_stride + last, 0.0);
  for (int64_t first = 0, slab = 0; first < tiles; first += kSlabTiles, ++slab) {
    backward(a, t, digits + first * kTileRows, first, std::min(first + kSlabTiles, tiles),
             kChunkTiles, sums);
    add_columns(a, t, sums.data(), outputs, count, scale + slab * outputs, total + slab * outputs,
                4 * begin, last, g, g_stride);
  }
}

void code_gram(const CodeMatrix& a, const RoundedModel& model, const float* weight, int64_t slab,
               double* g) {
  const int m = model.outputs;
  const int64_t first = slab * kGramTiles, end = std::min(first + kGramTiles, tiles_of(a));
  const int64_t row = slab * kGramRows, rows = std::min(kGramRows, a.data.rows - row);
  Scratch<int32_t> dots(dots_of(a, model));
  Scratch<float> e(m * kGramRows);
  forward(a, model, first, end, kGramTiles, e.data(), kGramRows, dots);
  for (int o = 0; weight != nullptr && o < m; ++o) {
    float* z = e.data() + o * kGramRows;
    for (int64_t k = 0; k < rows; ++k) z[k] *= weight[row + k];
  }
  Scratch<int8_t> digits(m * model.count * kGramRows);
  Scratch<double> scale(m), total(m);
  round_rows(e.data(), kGramRows, rows, m, model.count, kGramRows, digits.data(), scale.data(),
             total.data());
  TileArgs t = tile_args(a, m * model.count);
  t.g1 = groups_of(a);
  t.rows = kGramRows;
  Scratch<int32_t> sums(static_cast<int64_t>(t.outputs) * t.planes * t.cols);
  backward(a, t, digits.data(), first, end, kGramTiles, sums);
  const int64_t width = a.data.cols + 1;
  add_columns(a, t, sums.data(), m, model.count, scale.data(), total.data(), 0, a.data.cols, g,
              width);
  for (int o = 0; o < m; ++o) g[o * width + a.data.cols] += scale[o] * total[o];
}

}  // namespace torchext::cpu
