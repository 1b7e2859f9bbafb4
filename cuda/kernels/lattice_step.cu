// The optimizer step: gradients to a direction, a stochastically rounded move, codes and weights.
#include "four.h"
#include "lattice_table.h"
#include "warp_reduce.h"

namespace torchext::cuda {
namespace {

struct StepParams {
  LatticeStepArgs args;
  LatticeTable table;
};

/// Sums over one chunk: noise and moved in the lanes of tree_sum, counts and a maximum in any
/// order.
template <class T>
struct ChunkSums {
  double noise = 0, moved = 0;
  int clipped = 0, changed = 0, skipped = 0;
  T peak = 0;
};

template <class T>
struct LatticeStep {
  using Params = StepParams;
  static constexpr int kThreads = 128;
  static constexpr int kKept = 2 * 128;  // numbers a warp hands from lane to lane for its sums
  static constexpr Number kNumber = sizeof(T) == 8 ? Number::f64 : Number::f32;
  using Sums = ChunkSums<T>;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const LatticeStepArgs& args = p.args;
    const Key key = args.key != nullptr ? Key{args.key[0], args.key[1]} : Key{0, 0};
    const double lr = args.lr == nullptr  ? args.rule.lr
                      : args.lr_is_double ? *static_cast<const double*>(args.lr)
                                          : *static_cast<const float*>(args.lr);
    T* const kept = t.shared<T>() + t.warp() * kKept;
    over_chunks(p.table, t, [&](int i, int64_t chunk) {
      const LatticeItem& item = p.table.items[i];
      const LatticeTensor& a = item.tensor;
      const StepRule<T> s = step_rule<T>(args.rule, a, lr, static_cast<double>(spacing<T>(item)));
      Sums sums;
      if (s.moves)
        over_fours(a, chunk, t, [&](const Place& at) {
          step(s, a, key, at, args.sums != nullptr, sums, kept, t);
        });
      if (args.sums != nullptr) put_sums(s, sums, p.table, i, chunk, args.sums, t);
    });
  }

  TX_DEVICE static void step(const StepRule<T>& s, const LatticeTensor& a, Key key, const Place& at,
                             bool counts, Sums& sums, T* kept, const Thread& t) {
    const int bytes = bytes_of(a.number), own = bytes_of(kNumber), packed = bytes_of(a.store);
    Four center = {}, grad_center = {}, full_grad = {}, momentum = {};
    const Four grad = at.load(a.grad, bytes), codes = at.load(a.q, packed);
    if (s.corrected) grad_center = at.load(a.grad_center, bytes);
    if (s.anchored) full_grad = at.load(a.full_grad, bytes_of(a.full_number));
    if (a.center != nullptr) center = at.load(a.center, own);
    if (s.has_momentum) momentum = at.load(a.momentum, own);

    T g[4], gc[4], gf[4], c[4], q[4], old[4], w[4], v[4], next[4];
    read_numbers(grad, a.number, g);
    read_numbers(grad_center, a.number, gc);
    read_numbers(full_grad, a.full_number, gf);
    read_numbers(center, kNumber, c);
    read_numbers(momentum, kNumber, old);
    read_codes(codes, a.store, q);
    weights<4>(c, s.delta, q, w);
    direction<4>(s, g, gc, gf, w, old, v, next);
    if (s.has_momentum) at.store(write_numbers(next, kNumber), a.momentum, own);
    if (s.lattice)
      round(s, a.stream, key, at.i, q, v, counts, sums, kept, t);
    else
      move_really(s, q, v, sums);
    weights<4>(c, s.delta, q, w);
    at.store(write_codes(q, a.store), a.q, packed);
    at.store(write_numbers(w, a.number), a.param, bytes);
  }

  TX_DEVICE static void move_really(const StepRule<T>& s, T* q, const T* v, Sums& sums) {
    TX_UNROLL
    for (int k = 0; k < 4; ++k) {
      const bool moved = real_move(s, v[k], q + k);
      sums.skipped += moved ? 0 : 1;
    }
  }

  TX_DEVICE static void round(const StepRule<T>& s, uint32_t stream, Key key, int64_t i, T* q,
                              const T* v, bool counts, Sums& sums, T* kept, const Thread& t) {
    Words words = {};
    if (!s.nearest) words = draw4(key, static_cast<uint64_t>(i) / 4, stream, 0);
    T steps[4], rounded[4];
    TX_UNROLL
    for (int k = 0; k < 4; ++k) {
      const T u = s.nearest ? T{0.5} : static_cast<T>(unit(words.w[k]));
      const LatticeMove<T> m = move(s, v[k], q[k], u, [](T x) { return floor_value(x); });
      if (counts) {
        sums.skipped += m.finite ? 0 : 1;
        sums.clipped += m.free != m.q ? 1 : 0;
        sums.changed += m.q != q[k] ? 1 : 0;
        const T size = m.q < T{0} ? -m.q : m.q;
        sums.peak = size > sums.peak ? size : sums.peak;
      }
      q[k] = m.q;
      steps[k] = m.t;
      rounded[k] = m.r;
    }
    if (!counts) return;
    // tree_sum's lane l adds the elements l, l + 32, ..: exchange the four that lie side by side.
    store<4>(steps, kept + 4 * t.lane());
    store<4>(rounded, kept + 128 + 4 * t.lane());
    t.sync_warp();
    TX_UNROLL
    for (int k = 0; k < 4; ++k) {
      const auto x = static_cast<double>(kept[32 * k + t.lane()]);
      const double e = static_cast<double>(kept[128 + 32 * k + t.lane()]) - x;
      sums.noise = sums.noise + e * e;
      sums.moved = sums.moved + x * x;
    }
    t.sync_warp();
  }

  TX_DEVICE static void put_sums(const StepRule<T>& s, const Sums& sums, const LatticeTable& table,
                                 int i, int64_t chunk, double* all, const Thread& t) {
    const int64_t chunks = chunks_of(table, i), n = table.items[i].tensor.n - chunk * kLatticeChunk;
    const auto size = static_cast<int>(n < kLatticeChunk ? n : kLatticeChunk);
    const double noise = warp_sum(sums.noise, t), moved = warp_sum(sums.moved, t);
    const int clipped = warp_sum(sums.clipped, t), changed = warp_sum(sums.changed, t);
    const int skipped = warp_sum(sums.skipped, t);
    const T peak = warp_largest(sums.peak, t);
    if (t.lane() != 0) return;
    double* const to = all + table.first[i] * kLatticeSums + chunk;
    to[0] = clipped;
    to[chunks] = s.lattice && s.moves ? size - changed : 0;
    to[2 * chunks] = noise;
    to[3 * chunks] = moved;
    to[4 * chunks] = static_cast<double>(peak);
    to[5 * chunks] = skipped < size ? skipped : size;  // zeros past the end may be skipped too
  }
};

template <class T>
cudaError_t launch_step(const LatticeStepArgs& args, const LatticeItem* items, int64_t count,
                        cudaStream_t stream) noexcept {
  using Kernel = LatticeStep<T>;
  return over_tables(items, count, [&](const LatticeTable& table, int64_t before) {
    StepParams p{args, table};
    if (args.sums != nullptr) p.args.sums += before * kLatticeSums;
    const size_t shared =
        args.sums != nullptr ? Kernel::kThreads / 32 * Kernel::kKept * sizeof(T) : 0;
    const cudaError_t status =
        launch<Kernel>(p, chunk_launch(table, Kernel::kThreads, shared), stream);
    if (status != cudaSuccess || args.sums == nullptr) return status;
    return fold_sums(table, kLatticeSums, p.args.sums, stream);
  });
}

}  // namespace

cudaError_t launch_lattice_step(const LatticeStepArgs& args, const LatticeItem* items,
                                int64_t count, cudaStream_t stream) noexcept {
  if (count == 0) return cudaSuccess;
  return items[0].tensor.number == Number::f64 ? launch_step<double>(args, items, count, stream)
                                               : launch_step<float>(args, items, count, stream);
}

}  // namespace torchext::cuda
