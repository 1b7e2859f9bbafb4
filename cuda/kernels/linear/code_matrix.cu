#include <cmath>
#include <cstring>

#include "code_matrix.h"
#include "kernels/linear/code_products.h"
#include "kernels/rounding.h"
#include "tile_launch.cuh"
#include "workspace.h"

namespace torchext::cuda {
namespace {

/// Integers of a round, at most (unless a single slab has more).
constexpr int64_t kRoundIntegers = int64_t{1} << 24;

int64_t padded(int64_t cols) { return (cols + 63) / 64 * 64; }

TX_DEVICE int32_t top_of_digits(int digits) { return digits == 1 ? 127 : 127 * 128 + 63; }

/// Splits r into `digits` signed bytes, high digit first, `stride` apart.
TX_DEVICE void put_digits(int32_t r, int digits, int64_t stride, int8_t* to) {
  if (digits == 1) {
    *to = static_cast<int8_t>(r);
    return;
  }
  const int32_t high = (r + 64 + (128 << 8)) / 128 - 256;  // floor((r + 64) / 128)
  *to = static_cast<int8_t>(high);
  to[stride] = static_cast<int8_t>(r - 128 * high);
}

/// The sum of one or two digits, of one or two bytes each, from sums that are `stride` apart.
TX_DEVICE double value_of(const int32_t* from, int64_t stride, int digits, int planes) {
  double high = from[0], low = 0.0;
  if (planes == 2) high += 256.0 * from[stride];
  if (digits == 1) return high;
  low = from[planes * stride];
  if (planes == 2) low += 256.0 * from[3 * stride];
  return 128.0 * high + low;
}

/// Rounded vectors x, a block an output.
struct RoundVectors {
  struct Params {
    double* x;  // [outputs, cols]
    const float* grid;
    const double *offset, *shift;  // see CodeGram; may be null
    int64_t cols, stride;
    int digits;
    int8_t* q;  // [outputs*digits, stride]
    double *sigma, *beta;
  };
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t o = t.block();
    double* x = p.x + o * p.cols;
    auto* shared = t.shared<double>();
    double peak = 0.0;
    for (int64_t j = t.thread(); j < p.cols; j += kThreads) {
      const double size = std::fabs(static_cast<double>(p.grid[2 * j + 1]) * x[j]);
      peak = size > peak ? size : peak;
    }
    shared[t.thread()] = peak;
    t.sync();
    for (int half = kThreads / 2; half > 0; half /= 2) {
      const double other = t.thread() < half ? shared[t.thread() + half] : 0.0;
      if (other > shared[t.thread()]) shared[t.thread()] = other;
      t.sync();
    }
    const double scale = shared[0] / top_of_digits(p.digits),
                 inverse = scale > 0.0 ? 1.0 / scale : 0.0;
    t.sync();
    // The sums run in the order of the columns, as on the CPU: one thread adds what all prepare.
    double beta = 0.0;
    for (int64_t first = 0; first < p.stride; first += kThreads) {
      const int64_t j = first + t.thread();
      double product = 0.0;
      if (j < p.stride) {
        double r = 0.0;
        if (j < p.cols) {
          const double step = p.grid[2 * j + 1];
          r = std::rint(step * x[j] * inverse);
          if (step > 0.0) x[j] = r * scale / step;  // a column of one value keeps its x
          product = p.grid[2 * j] * x[j];
        }
        put_digits(static_cast<int32_t>(r), p.digits, p.stride, p.q + o * p.digits * p.stride + j);
      }
      beta = add_in_order(t, shared, product, beta, p.cols - first);
    }
    if (p.offset != nullptr) beta += p.offset[o];
    for (int64_t first = 0; p.shift != nullptr && first < p.cols; first += kThreads) {
      const int64_t j = first + t.thread();
      beta = add_in_order(t, shared, j < p.cols ? p.shift[j] * x[j] : 0.0, beta, p.cols - first);
    }
    if (t.thread() == 0) {
      p.sigma[o] = scale;
      p.beta[o] = beta;
    }
  }

  /// beta plus the first `count` threads' terms in turn; right in thread 0.
  TX_DEVICE static double add_in_order(const Thread& t, double* shared, double term, double beta,
                                       int64_t count) {
    shared[t.thread()] = term;
    t.sync();
    for (int k = 0; t.thread() == 0 && k < kThreads && k < count; ++k) beta += shared[k];
    t.sync();
    return beta;
  }
};

/// Integer products of a round's rows become scores.
struct Scores {
  struct Params {
    const int32_t* dots;  // [outputs*digits, planes, rows]
    int64_t dot_stride, rows, z_stride;
    int outputs, digits, planes;
    const double *sigma, *beta;
    float* z;
  };
  static constexpr int kThreads = 256;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t o = t.row();
    const double sigma = p.sigma[o], beta = p.beta[o];
    for (int64_t k = t.index(); k < p.rows; k += t.count()) {
      const double value = value_of(p.dots + o * p.digits * p.planes * p.dot_stride + k,
                                    p.dot_stride, p.digits, p.planes);
      p.z[o * p.z_stride + k] = static_cast<float>(sigma * value + beta);
    }
  }
};

/// Rounds slabs of e (times `weight`), a block a slab and output.
struct RoundSlabs {
  struct Params {
    const float *e, *weight;
    int64_t e_stride, rows, slab_rows, stride;
    int outputs, digits;
    int8_t* q;              // [outputs*digits, stride], zero beyond the rows up to a whole tile
    double *scale, *total;  // [slabs, outputs]
  };
  static constexpr int kThreads = 256;

  TX_DEVICE static float value(const Params& p, int64_t o, int64_t k) {
    if (k >= p.rows) return 0.0f;
    const float e = p.e[o * p.e_stride + k];
    return p.weight != nullptr ? e * p.weight[k] : e;
  }

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t slab = t.block(), o = t.row(), first = slab * p.slab_rows,
                  whole = (p.rows + 63) / 64 * 64, rest = first + p.slab_rows,
                  end = rest < whole ? rest : whole;
    auto* shared = t.shared<int32_t>();
    if (t.thread() < 2) shared[t.thread()] = 0;
    t.sync();
    int32_t bits = 0;
    for (int64_t k = first + t.thread(); k < end; k += kThreads) {
      const int32_t size = magnitude(value(p, o, k));
      bits = size > bits ? size : bits;
    }
    t.most(shared, bits);
    t.sync();
    float peak;
    std::memcpy(&peak, shared, sizeof peak);
    const float top = static_cast<float>(top_of_digits(p.digits)), unit = peak / top,
                inverse = inverse_step(unit);
    int32_t sum = 0;  // of 4,096 rows of 14 bits: no overflow
    for (int64_t k = first + t.thread(); k < end; k += kThreads) {
      float r = (value(p, o, k) * inverse + 12582912.0f) - 12582912.0f;  // to nearest, ties to even
      r = r != r ? 0.0f : r < -top ? -top : r > top ? top : r;
      const auto q = static_cast<int32_t>(r);
      put_digits(q, p.digits, p.stride, p.q + o * p.digits * p.stride + k);
      sum += q;
    }
    t.add(shared + 1, sum);
    t.sync();
    if (t.thread() == 0) {
      p.scale[slab * p.outputs + o] = inverse != 0.0f ? static_cast<double>(unit) : 0.0;
      p.total[slab * p.outputs + o] = static_cast<double>(shared[1]);
    }
  }

  TX_DEVICE static int32_t magnitude(float v) {
    const float size = v < 0.0f ? -v : v;
    int32_t bits = 0;
    if (size > 0.0f) std::memcpy(&bits, &size, sizeof bits);
    return bits;
  }
};

/// Integer column sums of slabs, in order, onto g; column `cols` of a wider g takes the sum of e.
struct AddSlabs {
  struct Params {
    const int32_t* sums;  // [slabs][outputs*digits][planes][np]
    int64_t slab_sums, slabs, cols, np, g_stride;
    int outputs, digits, planes;
    const float* grid;
    const double *scale, *total;
    double* g;
  };
  static constexpr int kThreads = 64;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t o = t.row();
    for (int64_t j = t.index(); j < p.g_stride; j += t.count()) {
      double g = p.g[o * p.g_stride + j];
      for (int64_t s = 0; s < p.slabs; ++s) {
        const double scale = p.scale[s * p.outputs + o], total = p.total[s * p.outputs + o];
        if (j == p.cols) {
          g += scale * total;
          continue;
        }
        const double value = value_of(p.sums + s * p.slab_sums + o * p.digits * p.planes * p.np + j,
                                      p.np, p.digits, p.planes);
        g += scale * (static_cast<double>(p.grid[2 * j]) * total +
                      static_cast<double>(p.grid[2 * j + 1]) * value);
      }
      p.g[o * p.g_stride + j] = g;
    }
  }
};

/// The tiles of rows [first, first + rows), first a multiple of 64.
TileMatrix part_of(const CodeMatrix& a, int64_t first, int64_t rows) {
  TileMatrix t = a.tiles;
  t.codes += first / 64 * ((t.cols + 3) / 4 * 32 * t.bits);
  t.tiles = (rows + 63) / 64;
  return t;
}

/// Rows of a round, `unit` at a time, so that `each` integers a unit stay within bounds.
int64_t round_rows(int64_t rows, int64_t unit, int64_t each) {
  const int64_t units = kRoundIntegers / each < 1 ? 1 : kRoundIntegers / each;
  const int64_t all = (rows + unit - 1) / unit * unit;
  return units * unit < all ? units * unit : all;
}

/// Model vectors and their integer dots with a round of rows.
struct Forward {
  int8_t* q = nullptr;
  double *sigma = nullptr, *beta = nullptr;
  int32_t* dots = nullptr;
  int64_t vectors, stride, rows;

  Forward(const CodeMatrix& a, int outputs, int digits, int64_t round, Parts& parts)
      : vectors(outputs * digits), stride(padded(a.tiles.cols)), rows((round + 63) / 64 * 64) {
    parts.take(q, vectors * stride);
    parts.take(sigma, outputs);
    parts.take(beta, outputs);
    parts.take(dots, vectors * a.tiles.planes * rows);
  }

  cudaError_t prepare(const CodeMatrix& a, int outputs, int digits, double* x, const double* offset,
                      const double* shift, cudaStream_t stream) const {
    const RoundVectors::Params p{x,      a.grid, offset, shift, a.tiles.cols,
                                 stride, digits, q,      sigma, beta};
    return launch<RoundVectors>(p, {outputs, 1, RoundVectors::kThreads * sizeof(double)}, stream);
  }

  cudaError_t scores(const CodeMatrix& a, int outputs, int digits, int64_t first, int64_t count,
                     float* z, int64_t z_stride, cudaStream_t stream) const {
    const int planes = a.tiles.planes;
    cudaError_t status =
        zero(dots, static_cast<size_t>(vectors * planes * rows) * sizeof(int32_t), stream);
    if (status != cudaSuccess) return status;
    status = launch_dots({part_of(a, first, count), static_cast<int>(vectors), q, stride, dots,
                          rows, 1, EpochStep{}},
                         stream);
    if (status != cudaSuccess) return status;
    const Scores::Params p{dots, rows, count, z_stride, outputs, digits, planes, sigma, beta, z};
    return launch<Scores>(p, {blocks_for(count, Scores::kThreads), outputs}, stream);
  }
};

/// Residuals rounded slab by slab, and their column sums for a round of slabs.
struct Backward {
  int8_t* q = nullptr;
  double *scale = nullptr, *total = nullptr;
  int32_t* sums = nullptr;
  int64_t vectors, np, slab_rows, stride, slabs, slab_sums;

  /// `round`: rows at a time, whole slabs.
  Backward(const CodeMatrix& a, int outputs, int digits, int64_t slab, int64_t round, Parts& parts)
      : vectors(outputs * digits),
        np(padded(a.tiles.cols)),
        slab_rows(slab),
        stride((round + 63) / 64 * 64),
        slabs((round + slab - 1) / slab),
        slab_sums(vectors * a.tiles.planes * np) {
    parts.take(q, vectors * stride);
    parts.take(scale, slabs * outputs);
    parts.take(total, slabs * outputs);
    parts.take(sums, slabs * slab_sums);
  }

  /// Adds rows [first, first + count) of e (column 0 is row `first`) to g [outputs, g_stride].
  cudaError_t add(const CodeMatrix& a, int outputs, int digits, int64_t first, int64_t count,
                  const float* e, int64_t e_stride, const float* weight, double* g,
                  int64_t g_stride, cudaStream_t stream) const {
    const int64_t used = (count + slab_rows - 1) / slab_rows;
    const RoundSlabs::Params round{e,       weight, e_stride, count, slab_rows, stride,
                                   outputs, digits, q,        scale, total};
    cudaError_t status = launch<RoundSlabs>(round, {used, outputs, 16}, stream);
    if (status != cudaSuccess) return status;
    status = zero(sums, static_cast<size_t>(used * slab_sums) * sizeof(int32_t), stream);
    if (status != cudaSuccess) return status;
    const TileMatrix tiles = part_of(a, first, count);
    const int64_t slab_tiles = slab_rows / 64, chunks = vectors == 1 ? 1 : (vectors + 3) / 4;
    int64_t split = slab_tiles < kSplitTiles ? slab_tiles : kSplitTiles;
    while (split > 4 &&
           np / 64 * chunks * a.tiles.planes * ((tiles.tiles + split - 1) / split) < kBlocksWanted)
      split /= 2;  // still divides a slab
    status = launch_sums({tiles, static_cast<int>(vectors), q, stride, sums, slab_tiles, slab_sums,
                          split, EpochStep{}},
                         stream);
    if (status != cudaSuccess) return status;
    const AddSlabs::Params p{sums,   slab_sums,      used,   a.tiles.cols, np,    g_stride, outputs,
                             digits, a.tiles.planes, a.grid, scale,        total, g};
    return launch<AddSlabs>(p, {blocks_for(g_stride, AddSlabs::kThreads), outputs}, stream);
  }
};

int64_t dot_round(const CodeDot& p) {
  return round_rows(p.a.rows, 64, int64_t{64} * p.outputs * p.digits * p.a.tiles.planes);
}
int64_t sum_round(const CodeSum& p) {
  return round_rows(p.a.rows, cpu::kSlabRows,
                    p.outputs * p.digits * p.a.tiles.planes * padded(p.a.tiles.cols));
}
/// Also so short that the codes of a round are still in the second-level cache when they are read
/// for the second time.
int64_t gram_round(const CodeGram& p) {
  const int64_t integers =
      p.outputs * p.digits * p.a.tiles.planes * (padded(p.a.tiles.cols) + cpu::kGramRows);
  const int64_t bytes = p.a.tiles.cols * p.a.tiles.bits / 8 * cpu::kGramRows;
  return round_rows(p.a.rows, cpu::kGramRows, integers > bytes ? integers : bytes);
}

struct GramParts {
  Parts parts;
  int64_t round;
  Forward forward;
  Backward backward;
  float* e = nullptr;

  GramParts(const CodeGram& p, void* base)
      : parts(base),
        round(gram_round(p)),
        forward(p.a, p.outputs, p.digits, round, parts),
        backward(p.a, p.outputs, p.digits, cpu::kGramRows, round, parts) {
    parts.take(e, p.outputs * round);
  }
};

}  // namespace

size_t code_dot_workspace(const CodeDot& p) noexcept {
  Parts parts(nullptr);
  Forward(p.a, p.outputs, p.digits, dot_round(p), parts);
  return parts.used();
}

cudaError_t launch_code_dot(const CodeDot& p, void* workspace, cudaStream_t stream) noexcept {
  Parts parts(workspace);
  const int64_t round = dot_round(p);
  const Forward f(p.a, p.outputs, p.digits, round, parts);
  cudaError_t status = f.prepare(p.a, p.outputs, p.digits, p.x, nullptr, nullptr, stream);
  for (int64_t first = 0; first < p.a.rows && status == cudaSuccess; first += round) {
    const int64_t count = first + round < p.a.rows ? round : p.a.rows - first;
    status = f.scores(p.a, p.outputs, p.digits, first, count, p.z + first, p.a.rows, stream);
  }
  return status;
}

size_t code_sum_workspace(const CodeSum& p) noexcept {
  Parts parts(nullptr);
  Backward(p.a, p.outputs, p.digits, cpu::kSlabRows, sum_round(p), parts);
  return parts.used();
}

cudaError_t launch_code_sum(const CodeSum& p, void* workspace, cudaStream_t stream) noexcept {
  Parts parts(workspace);
  const int64_t round = sum_round(p), cols = p.a.tiles.cols;
  const Backward b(p.a, p.outputs, p.digits, cpu::kSlabRows, round, parts);
  cudaError_t status = zero(p.g, static_cast<size_t>(p.outputs * cols) * sizeof(double), stream);
  for (int64_t first = 0; first < p.a.rows && status == cudaSuccess; first += round) {
    const int64_t count = first + round < p.a.rows ? round : p.a.rows - first;
    status = b.add(p.a, p.outputs, p.digits, first, count, p.e + first, p.a.rows, nullptr, p.g,
                   cols, stream);
  }
  return status;
}

size_t code_gram_workspace(const CodeGram& p) noexcept {
  return GramParts(p, nullptr).parts.used();
}

cudaError_t launch_code_gram(const CodeGram& p, void* workspace, cudaStream_t stream) noexcept {
  const GramParts w(p, workspace);
  const int64_t width = p.a.tiles.cols + 1;
  cudaError_t status = zero(p.g, static_cast<size_t>(p.outputs * width) * sizeof(double), stream);
  const auto then = [&](cudaError_t next) { status = status != cudaSuccess ? status : next; };
  then(w.forward.prepare(p.a, p.outputs, p.digits, p.x, p.offset, p.shift, stream));
  for (int64_t first = 0; first < p.a.rows && status == cudaSuccess; first += w.round) {
    const int64_t count = first + w.round < p.a.rows ? w.round : p.a.rows - first;
    then(w.forward.scores(p.a, p.outputs, p.digits, first, count, w.e, w.round, stream));
    then(w.backward.add(p.a, p.outputs, p.digits, first, count, w.e, w.round,
                        p.weight != nullptr ? p.weight + first : nullptr, p.g, width, stream));
  }
  return status;
}

}  // namespace torchext::cuda
