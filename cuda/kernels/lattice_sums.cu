// Sums of lattice tensors in the order of tree_sum: squared norms, and the fold of chunk sums.
#include "kernels/optim/lattice_rule.h"
#include "lattice_table.h"
#include "warp_reduce.h"

namespace torchext::cuda {
namespace {

/// A level of tree_sum: of the terms at 0, stride, 2*stride, .. 1024 at a time become one, where
/// the first of them was. A row of blocks for each tensor and kind of sum, a warp for each 1024
/// terms.
struct FoldSums {
  struct Params {
    LatticeTable table;
    double* sums;
    int64_t stride;
    int kinds;
    bool last;  // one term is left: it goes to the result
  };
  static constexpr int kThreads = 32;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const auto i = static_cast<int>(t.row() / p.kinds), kind = static_cast<int>(t.row() % p.kinds);
    const bool largest = p.kinds == kLatticeSums && kind == 4;
    const int64_t chunks = chunks_of(p.table, i), terms = (chunks + p.stride - 1) / p.stride;
    double* const from = p.sums + p.table.first[i] * p.kinds + kind * chunks;
    for (int64_t first = t.block() * kTreeChunk; first < terms; first += t.blocks() * kTreeChunk) {
      const int64_t rest = terms - first, n = rest < kTreeChunk ? rest : kTreeChunk;
      double value = 0.0;
      for (int64_t j = t.lane(); j < n; j += 32) {
        const double term = from[(first + j) * p.stride];
        value = !largest ? value + term : term > value ? term : value;
      }
      value = largest ? warp_largest(value, t) : warp_sum(value, t);
      if (t.lane() != 0) continue;
      double* const result = p.table.items[i].result;
      if (!p.last)
        from[first * p.stride] = value;
      else if (largest)
        result[kind] = value;
      else
        result[kind] += value;
    }
  }
};

struct SquareSums {
  struct Params {
    double weight_decay;
    double* sums;
    LatticeTable table;
  };
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    over_chunks(p.table, t, [&](int i, int64_t chunk) {
      const LatticeTensor& a = p.table.items[i].tensor;
      double sum = 0.0;
      switch (a.full_number) {
        case Number::f32: sum = squares<Number::f32>(a, p.weight_decay, chunk, t); break;
        case Number::f64: sum = squares<Number::f64>(a, p.weight_decay, chunk, t); break;
        case Number::bf16: sum = squares<Number::bf16>(a, p.weight_decay, chunk, t); break;
        default: sum = squares<Number::f16>(a, p.weight_decay, chunk, t);
      }
      sum = warp_sum(sum, t);
      if (t.lane() == 0) p.sums[p.table.first[i] + chunk] = sum;
    });
  }

  template <Number kNumber>
  TX_DEVICE static double squares(const LatticeTensor& a, double weight_decay, int64_t chunk,
                                  const Thread& t) {
    constexpr int kAhead = 8;  // loads in flight
    const int64_t begin = chunk * kLatticeChunk;
    double sum = 0.0;
    for (int64_t first = begin; first < begin + kLatticeChunk; first += 32 * kAhead) {
      double x[kAhead];
      TX_UNROLL
      for (int k = 0; k < kAhead; ++k) {
        const int64_t j = first + 32 * k + t.lane();
        x[k] = j < a.n ? decayed(a, weight_decay, number_at(a.full_grad, kNumber, j), j) : 0.0;
      }
      TX_UNROLL
      for (int k = 0; k < kAhead; ++k) sum += x[k] * x[k];
    }
    return sum;
  }
};

}  // namespace

cudaError_t fold_sums(const LatticeTable& table, int kinds, double* sums,
                      cudaStream_t stream) noexcept {
  int64_t most = 0;  // terms of the longest sum
  for (int i = 0; i < table.count; ++i) {
    const int64_t chunks = table.first[i + 1] - table.first[i];
    most = chunks > most ? chunks : most;
  }
  for (int64_t stride = 1;; stride *= kTreeChunk) {
    const int64_t groups = (most + kTreeChunk - 1) / kTreeChunk;
    const bool last = groups <= 1;
    const Launch at{blocks_for(groups, 1), int64_t{kinds} * table.count, 0};
    const cudaError_t status = launch<FoldSums>({table, sums, stride, kinds, last}, at, stream);
    if (status != cudaSuccess || last) return status;
    most = groups;
  }
}

int64_t lattice_chunks_of(const LatticeItem* items, int64_t count) noexcept {
  int64_t chunks = 0;
  for (int64_t i = 0; i < count; ++i) chunks += lattice_chunks(items[i].tensor.n);
  return chunks;
}

cudaError_t launch_square_sums(double weight_decay, double* sums, const LatticeItem* items,
                               int64_t count, cudaStream_t stream) noexcept {
  return over_tables(items, count, [&](const LatticeTable& table, int64_t before) {
    const cudaError_t status = launch<SquareSums>(
        {weight_decay, sums + before, table}, chunk_launch(table, SquareSums::kThreads), stream);
    return status == cudaSuccess ? fold_sums(table, 1, sums + before, stream) : status;
  });
}

}  // namespace torchext::cuda
