// Full passes over tile4 codes, four tiles at a time.
#include "../../linear/code_products.h"

#include <algorithm>
#include <cmath>

#include "../../linear/scratch.h"

namespace torchext::cpu {
namespace {

constexpr int64_t kChunkTiles = 4;

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

/// Four streams through the chunk after this one, or through this one at the end.
Prefetch next_chunk(const TileArgs& t, const uint8_t* end) {
  Prefetch f{};
  f.log2_streams = 2;
  const int64_t segment = (t.g1 - t.g0) * 32 * t.bits, chunk = kChunkTiles * t.tile_bytes;
  f.half = (segment / 2 + 127) & ~int64_t{127};
  const uint8_t* base = t.codes + chunk + chunk <= end ? t.codes + chunk : t.codes;
  for (int s = 0; s < 4; ++s)
    f.stream[s] = base + std::min<int64_t>(s, t.tiles - 1) * t.tile_bytes + t.g0 * 32 * t.bits;
  return f;
}

const uint8_t* codes_end(const CodeMatrix& a) { return a.codes + layout_bytes(a.data); }

int64_t tiles_of(const CodeMatrix& a) { return (a.data.rows + kTileRows - 1) / kTileRows; }

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
  const SgdKernels& kernels = sgd_kernels();
  TileArgs t = tile_args(a, model.outputs * model.count);
  t.g1 = groups_of(a);
  t.cols = model.stride;
  t.rows = kChunkTiles * kTileRows;
  Scratch<int32_t> dots(static_cast<int64_t>(t.outputs) * t.planes * t.rows);
  for (int64_t first = begin; first < end; first += kChunkTiles) {
    t.tiles = static_cast<int>(std::min(kChunkTiles, end - first));
    t.codes = a.codes + first * t.tile_bytes;
    kernels.forward(t, model.digits, dots.data(), next_chunk(t, codes_end(a)));
    const int64_t row0 = first * kTileRows,
                  rows = std::min(t.tiles * kTileRows + row0, a.data.rows) - row0;
    for (int o = 0; o < model.outputs; ++o) {
      const int32_t* d = dots.data() + static_cast<int64_t>(o) * model.count * t.planes * t.rows;
      float* to = z + o * z_stride + row0;
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
}

void round_slab(const CodeMatrix& a, const float* e, int64_t e_stride, int outputs, int count,
                int64_t slab, int64_t stride, int8_t* digits, double* scale, double* total) {
  const int64_t row0 = slab * kSlabRows, rows = std::min(kSlabRows, a.data.rows - row0);
  for (int o = 0; o < outputs; ++o) {
    const float* from = e + o * e_stride + row0;
    float peak = 0.0f;
    for (int64_t k = 0; k < rows; ++k) peak = std::max(peak, std::fabs(from[k]));
    const float top = static_cast<float>(top_of_digits(count));
    const float unit = peak / top, inverse = unit >= 0x1p-126f ? 1.0f / unit : 0.0f;
    int64_t sum = 0;
    for (int64_t k = 0; k < rows; ++k) {
      float r = (from[k] * inverse + 12582912.0f) - 12582912.0f;  // rounds to nearest, ties to even
      r = r < -top ? -top : r > top ? top : r;
      const auto q = static_cast<int32_t>(r);
      put_digits(q, count, stride, digits + static_cast<int64_t>(o) * count * stride + row0 + k);
      sum += q;
    }
    scale[o] = inverse != 0.0f ? static_cast<double>(unit) : 0.0;
    total[o] = static_cast<double>(sum);
  }
}

void code_backward(const CodeMatrix& a, const int8_t* digits, int64_t stride, int outputs,
                   int count, const double* scale, const double* total, int64_t begin, int64_t end,
                   double* g, int64_t g_stride) {
  const SgdKernels& kernels = sgd_kernels();
  TileArgs t = tile_args(a, outputs * count);
  t.g0 = begin;
  t.g1 = end;
  t.rows = stride;
  const int64_t tiles = tiles_of(a), slab_tiles = kSlabRows / kTileRows;
  // The kernels address columns from the matrix' first; only this range is touched.
  Scratch<int32_t> sums(static_cast<int64_t>(t.outputs) * t.planes * t.cols);
  const int64_t last = std::min(4 * end, a.data.cols);
  for (int o = 0; o < outputs; ++o)
    std::fill(g + o * g_stride + 4 * begin, g + o * g_stride + last, 0.0);
  for (int64_t first = 0, slab = 0; first < tiles; first += slab_tiles, ++slab) {
    const int64_t stop = std::min(first + slab_tiles, tiles);
    for (int64_t c = first; c < stop; c += kChunkTiles) {
      t.tiles = static_cast<int>(std::min(kChunkTiles, stop - c));
      t.codes = a.codes + c * t.tile_bytes;
      kernels.backward(t, digits + c * kTileRows, sums.data(), c > first,
                       next_chunk(t, codes_end(a)));
    }
    for (int o = 0; o < outputs; ++o) {
      const double unit = scale[slab * outputs + o], sum = total[slab * outputs + o];
      const int32_t* from = sums.data() + static_cast<int64_t>(o) * count * t.planes * t.cols;
      for (int64_t j = 4 * begin; j < last; ++j) {
        double value = 0.0;
        for (int digit = 0; digit < count; ++digit) {
          const int32_t* s = from + static_cast<int64_t>(digit) * t.planes * t.cols + j;
          const double part = t.planes == 2 ? s[0] + 256.0 * s[t.cols] : s[0];
          value = 128.0 * value + part;
        }
        g[o * g_stride + j] += unit * (static_cast<double>(a.grid[2 * j]) * sum +
                                       static_cast<double>(a.grid[2 * j + 1]) * value);
      }
    }
  }
}

}  // namespace torchext::cpu
