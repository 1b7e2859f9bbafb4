#include "quantize_symmetric.cuh"
#include "quantize_symmetric.h"
#include "vector_io.h"

namespace torchext::cuda {
namespace {

/// kVector: x is aligned to 16 bytes and codes to 4.
template <int kBits, bool kVector>
struct QuantizeSymmetric {
  using Params = QuantizeSymmetricParams;
  static constexpr int kThreads = 256;
  static constexpr int kElems = 32;  // of a thread's turn: kBits whole words, 8 Philox blocks

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const float inverse = inverse_step(*p.scale);
    const Key key{p.key[0], p.key[1]};
    const int64_t units = (p.n + kElems - 1) / kElems;
    for (int64_t u = t.index(); u < units; u += t.count()) {
      const int64_t first = u * kElems;
      const auto block = static_cast<uint64_t>(first / 4);
      uint8_t* codes = p.codes + u * 4 * kBits;
      if (kVector && p.n - first >= kElems) {
        float x[kElems];
        load<kElems>(p.x + first, x);
        uint32_t words[kBits];
        quantize_symmetric_unit<kBits>(x, inverse, key, block, p.stream, words);
        TX_UNROLL
        for (int k = 0; k < kBits; ++k) reinterpret_cast<uint32_t*>(codes)[k] = words[k];
      } else {
        const int64_t rest = p.n - first;
        const int count = rest < kElems ? static_cast<int>(rest) : kElems;
        quantize_symmetric_tail<kBits>(p.x + first, count, inverse, key, block, p.stream, codes);
      }
    }
  }
};

template <int kBits>
cudaError_t launch_bits(const QuantizeSymmetricParams& p, cudaStream_t stream) noexcept {
  using Fast = QuantizeSymmetric<kBits, true>;
  const Launch at{blocks_for(p.n, int64_t{Fast::kThreads} * Fast::kElems)};
  const bool aligned =
      reinterpret_cast<uintptr_t>(p.x) % 16 == 0 && reinterpret_cast<uintptr_t>(p.codes) % 4 == 0;
  return aligned ? launch<Fast>(p, at, stream)
                 : launch<QuantizeSymmetric<kBits, false>>(p, at, stream);
}

}  // namespace

cudaError_t launch_quantize_symmetric(const QuantizeSymmetricParams& p, int bits,
                                      cudaStream_t stream) noexcept {
  if (p.n == 0) return cudaSuccess;
  switch (bits) {
    case 2: return launch_bits<2>(p, stream);
    case 3: return launch_bits<3>(p, stream);
    case 4: return launch_bits<4>(p, stream);
    case 5: return launch_bits<5>(p, stream);
    case 6: return launch_bits<6>(p, stream);
    case 7: return launch_bits<7>(p, stream);
    case 8: return launch_bits<8>(p, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace torchext::cuda
