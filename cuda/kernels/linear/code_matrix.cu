#include "code_matrix.cuh"
#include "code_matrix.h"
#include "kernels/linear/code_products.h"
#include "tile_launch.cuh"
#include "workspace.h"

namespace torchext::cuda {
namespace {

/// Integers of a round, at most (unless a single slab has more).
constexpr int64_t kRoundIntegers = int64_t{1} << 24;

int64_t padded(int64_t cols) { return (cols + 63) / 64 * 64; }

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
