#include "code_tile.h"
#include "format_rules.h"
#include "quantizer.h"

namespace torchext::cuda {
namespace {

constexpr int kInFlight = 4;  // rows that are loaded before the first is rounded
constexpr int kDecoded = 2;   // the same of codes: few registers, so that an SM is full of threads

/// Rounds a tile: emit(e, code, spacing) for each of a lane's four elements, then put(row, first of
/// the four, from the tile's start). A tile of one channel reads its scale once.
template <bool kStochastic, class Rule, class Emit, class Put>
TX_DEVICE void round_tile(const QuantizerParams& p, const Rule& rule, Key key, const Thread& t,
                          int64_t tile, int size, const Emit& emit, const Put& put) {
  const TileChannels channels(p.format.channels, tile);
  const void* from = element(p.x, p.x_type, tile);
  const bool aligned = is_aligned(p.x);
  key.offset += static_cast<uint64_t>(tile / 4 + t.lane());
  Spacing spacing = rule.spacing(channels.first());
  for (int row = 0; row < kTileRows; row += kInFlight) {
    float x[kInFlight][4];
    load_floats<kInFlight>(from, p.x_type, row * kRow + 4 * t.lane(), size, aligned, x);
    TX_UNROLL
    for (int k = 0; k < kInFlight; ++k) {
      const int i = (row + k) * kRow + 4 * t.lane();
      Words r{};
      if (kStochastic) r = draw4(key, static_cast<uint64_t>(32 * (row + k)), p.stream, 0);
      TX_UNROLL
      for (int e = 0; e < 4; ++e) {
        if (channels.changes(e)) spacing = rule.spacing(channels.at(i + e));
        emit(e, rule.template round<kStochastic>(x[k][e], spacing, unit(r.w[e])), spacing);
      }
      put(row + k, i);
    }
  }
}

template <bool kStochastic>
TX_DEVICE Key read_key(const uint64_t* key) {
  return kStochastic ? Key{key[0], key[1]} : Key{};
}

template <class Rule, bool kStochastic>
struct Quantize {
  using Params = QuantizerParams;
  static constexpr int kThreads = kTileThreads;
  static constexpr size_t kShared = 4 * (Rule::kSharedWords + kTileWarps * kTileWords);

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Rule rule(p.format, t);
    const Key key = read_key<kStochastic>(p.key);
    uint32_t* bytes = t.shared<uint32_t>() + Rule::kSharedWords + t.warp() * kTileWords;
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      uint32_t four = 0;
      round_tile<kStochastic>(
          p, rule, key, t, tile, size,
          [&](int e, int32_t code, const Spacing&) {
            four |= static_cast<uint32_t>(code < 0 ? rule.missing() : code) << 8 * e;
          },
          [&](int row, int) {
            bytes[32 * row + t.lane()] = four;
            four = 0;
          });
      pack_tile(t, bytes, p.format.bits, tile, size, p.codes);
    });
  }
};

template <class Rule, bool kStochastic>
struct RoundTrip {
  using Params = QuantizerParams;
  static constexpr int kThreads = kTileThreads;
  static constexpr size_t kShared = 4 * Rule::kSharedWords;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Rule rule(p.format, t);
    const Key key = read_key<kStochastic>(p.key);
    const bool aligned = is_aligned(p.y);
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      auto* to = const_cast<void*>(element(p.y, p.x_type, tile));
      float y[4];
      round_tile<kStochastic>(
          p, rule, key, t, tile, size,
          [&](int e, int32_t code, const Spacing& s) {
            y[e] = code < 0 ? __builtin_nanf("") : rule.decode(code, s);
          },
          [&](int, int i) { store_floats(y, to, p.x_type, i, size, aligned); });
    });
  }
};

template <class Rule>
struct Dequantize {
  using Params = QuantizerParams;
  static constexpr int kThreads = kTileThreads;
  static constexpr size_t kShared = 4 * Rule::kSharedWords;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Rule rule(p.format, t);
    const int bits = p.format.bits;
    const bool words = reinterpret_cast<uintptr_t>(p.codes) % 4 == 0, aligned = is_aligned(p.y);
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      const TileChannels channels(p.format.channels, tile);
      const uint8_t* from = p.codes + tile / 8 * bits;
      float* to = static_cast<float*>(p.y) + tile;
      Spacing spacing = rule.spacing(channels.first());
      for (int row = 0; row < kTileRows; row += kDecoded) {
        const int first = row * kRow + 4 * t.lane();
        uint32_t fours[kDecoded];
        TX_UNROLL
        for (int k = 0; k < kDecoded; ++k)
          fours[k] = four_codes(from, bits, first + k * kRow, size, words);
        TX_UNROLL
        for (int k = 0; k < kDecoded; ++k) {
          const int i = first + k * kRow;
          Fours<float> y;
          TX_UNROLL
          for (int e = 0; e < 4; ++e) {
            if (channels.changes(e)) spacing = rule.spacing(channels.at(i + e));
            y.v[e] = rule.decode(code_of(fours[k], e, bits), spacing);
          }
          store_four(y, to, i, size, aligned);
        }
      }
    });
  }
};

template <class Kernel>
cudaError_t launch_codes(const QuantizerParams& p, cudaStream_t stream) noexcept {
  return launch_tiles<Kernel>(p, p.n, Kernel::kShared, stream);
}

/// Op<Rule, stochastic or not>.
template <template <class, bool> class Op>
cudaError_t launch_rounding(const QuantizerParams& p, cudaStream_t stream) noexcept {
  if (p.n == 0) return cudaSuccess;
  if (p.format.bits < 1 || p.format.bits > 8) return cudaErrorInvalidValue;
  return with_rule(p.format, [&](auto* rule) {
    using Rule = std::remove_pointer_t<decltype(rule)>;
    return p.stochastic ? launch_codes<Op<Rule, true>>(p, stream)
                        : launch_codes<Op<Rule, false>>(p, stream);
  });
}

}  // namespace

cudaError_t launch_quantize(const QuantizerParams& p, cudaStream_t stream) noexcept {
  return launch_rounding<Quantize>(p, stream);
}

cudaError_t launch_fake_quantize(const QuantizerParams& p, cudaStream_t stream) noexcept {
  return launch_rounding<RoundTrip>(p, stream);
}

cudaError_t launch_dequantize(const QuantizerParams& p, cudaStream_t stream) noexcept {
  if (p.n == 0) return cudaSuccess;
  if (p.format.bits < 1 || p.format.bits > 8) return cudaErrorInvalidValue;
  return with_rule(p.format, [&](auto* rule) {
    return launch_codes<Dequantize<std::remove_pointer_t<decltype(rule)>>>(p, stream);
  });
}

}  // namespace torchext::cuda
