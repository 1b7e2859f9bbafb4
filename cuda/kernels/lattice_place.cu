// Weights from centre and codes, centres moved to the weights, codes from weights.
#include "four.h"
#include "lattice_table.h"

namespace torchext::cuda {
namespace {

template <class T>
constexpr Number kNumber = sizeof(T) == 8 ? Number::f64 : Number::f32;

template <class T>
struct LatticePlace {
  struct Params {
    bool commit;
    LatticeTable table;
  };
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    over_chunks(p.table, t, [&](int i, int64_t chunk) {
      const LatticeTensor& a = p.table.items[i].tensor;
      const T delta = spacing<T>(p.table.items[i]);
      over_fours(a, chunk, t, [&](const Place& at) { place(p.commit, a, delta, at); });
    });
  }

  TX_DEVICE static void place(bool commit, const LatticeTensor& a, T delta, const Place& at) {
    const int own = bytes_of(kNumber<T>), packed = bytes_of(a.store);
    Four center = {};
    const Four codes = at.load(a.q, packed);
    if (a.center != nullptr) center = at.load(a.center, own);
    T c[4], q[4], w[4];
    read_numbers(center, kNumber<T>, c);
    read_codes(codes, a.store, q);
    weights<4>(c, delta, q, w);
    at.store(write_numbers(w, a.number), a.param, bytes_of(a.number));
    if (!commit) return;
    at.store(write_numbers(w, kNumber<T>), a.center, own);
    at.store(Four{}, a.q, packed);  // 0 has no bits in any store
  }
};

template <class T>
struct LatticeEncode {
  struct Params {
    int bits;
    LatticeTable table;
  };
  static constexpr int kThreads = 128;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const T top = static_cast<T>((1 << (p.bits - 1)) - 1);
    over_chunks(p.table, t, [&](int i, int64_t chunk) {
      const LatticeTensor& a = p.table.items[i].tensor;
      const T delta = spacing<T>(p.table.items[i]);
      if (is_spacing(static_cast<double>(delta)))
        over_fours(a, chunk, t, [&](const Place& at) { encode(a, delta, top, at); });
    });
  }

  TX_DEVICE static void encode(const LatticeTensor& a, T delta, T top, const Place& at) {
    const int bytes = bytes_of(a.number);
    T x[4], q[4], w[4];
    const T zero[4] = {};
    read_numbers(at.load(a.param, bytes), a.number, x);
    bool nan = false;
    TX_UNROLL
    for (int k = 0; k < 4; ++k) q[k] = nearest_code(x[k], delta, top, &nan);
    weights<4>(zero, delta, q, w);
    at.store(write_codes(q, a.store), a.q, bytes_of(a.store));
    at.store(write_numbers(w, a.number), a.param, bytes);
  }
};

/// Launches Kernel<float> or Kernel<double> by the arithmetic of the tensors.
template <template <class> class Kernel, class Option>
cudaError_t launch_all(Option option, const LatticeItem* items, int64_t count,
                       cudaStream_t stream) noexcept {
  if (count == 0) return cudaSuccess;
  return over_tables(items, count, [&](const LatticeTable& table, int64_t) {
    const Launch at = chunk_launch(table, Kernel<float>::kThreads);
    return items[0].tensor.number == Number::f64
               ? launch<Kernel<double>>({option, table}, at, stream)
               : launch<Kernel<float>>({option, table}, at, stream);
  });
}

}  // namespace

cudaError_t launch_lattice_place(bool commit, const LatticeItem* items, int64_t count,
                                 cudaStream_t stream) noexcept {
  return launch_all<LatticePlace>(commit, items, count, stream);
}

cudaError_t launch_lattice_encode(int bits, const LatticeItem* items, int64_t count,
                                  cudaStream_t stream) noexcept {
  return launch_all<LatticeEncode>(bits, items, count, stream);
}

}  // namespace torchext::cuda
