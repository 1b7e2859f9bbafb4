#include "bit_stream.h"
#include "code_tile.h"

namespace torchext::cuda {
namespace {

constexpr int kInFlight = 4;

struct Pack {
  using Params = BitStreamParams;
  static constexpr int kThreads = kTileThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    uint32_t* bytes = t.shared<uint32_t>() + t.warp() * kTileWords;
    const uint32_t mask = 0x01010101u * ((1u << p.bits) - 1);
    const bool aligned = is_aligned(p.codes);
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      for (int first = 0; first < kTileRows; first += kInFlight) {
        TX_UNROLL
        for (int row = first; row < first + kInFlight; ++row) {
          const Fours<uint8_t> c =
              load_four(p.codes + tile, row * kRow + 4 * t.lane(), size, aligned);
          uint32_t four;
          std::memcpy(&four, &c, sizeof four);
          bytes[32 * row + t.lane()] = four & mask;
        }
      }
      pack_tile(t, bytes, p.bits, tile, size, p.packed);
    });
  }
};

struct Unpack {
  using Params = BitStreamParams;
  static constexpr int kThreads = kTileThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const bool words = reinterpret_cast<uintptr_t>(p.packed) % 4 == 0,
               aligned = is_aligned(p.codes);
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      const uint8_t* from = p.packed + tile / 8 * p.bits;
      TX_ROLLED
      for (int row = 0; row < kTileRows; ++row) {
        const int i = row * kRow + 4 * t.lane();
        const uint32_t four = four_codes(from, p.bits, i, size, words);
        Fours<uint8_t> c;
        TX_UNROLL
        for (int e = 0; e < 4; ++e) c.v[e] = static_cast<uint8_t>(code_of(four, e, p.bits));
        store_four(c, p.codes + tile, i, size, aligned);
      }
    });
  }
};

template <class Kernel>
cudaError_t launch_bits(const BitStreamParams& p, size_t shared, cudaStream_t stream) noexcept {
  if (p.n == 0) return cudaSuccess;
  if (p.bits < 1 || p.bits > 8) return cudaErrorInvalidValue;
  return launch_tiles<Kernel>(p, p.n, shared, stream);
}

}  // namespace

cudaError_t launch_pack(const BitStreamParams& p, cudaStream_t stream) noexcept {
  return launch_bits<Pack>(p, size_t{4} * kTileWords * kTileWarps, stream);
}

cudaError_t launch_unpack(const BitStreamParams& p, cudaStream_t stream) noexcept {
  return launch_bits<Unpack>(p, 0, stream);
}

}  // namespace torchext::cuda
