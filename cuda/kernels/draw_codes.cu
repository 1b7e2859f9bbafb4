#include "code_tile.h"
#include "draw_codes.h"
#include "format_rules.h"

namespace torchext::cuda {
namespace {

TX_DEVICE int ones(uint32_t bits) {
  int count = 0;
  for (; bits != 0; bits &= bits - 1) ++count;
  return count;
}

/// The upward draws of a lane's four values, one bit a draw: draw d is one Philox block.
template <class Rule>
TX_DEVICE void draw_four(const DrawCodesParams& p, const Rule& rule, Key key, uint64_t block,
                         const float* x, const Spacing* spacing, int32_t* base, uint32_t* ups) {
  float fraction[4];
  TX_UNROLL
  for (int e = 0; e < 4; ++e) {
    rule.locate(x[e], spacing[e], &base[e], &fraction[e]);
    ups[e] = 0;
  }
  TX_ROLLED
  for (int d = 0; d < p.draws; ++d) {
    const Words r = draw4(key, block, p.stream, static_cast<uint32_t>(d));
    TX_UNROLL
    for (int e = 0; e < 4; ++e) ups[e] |= static_cast<uint32_t>(unit(r.w[e]) < fraction[e]) << d;
  }
}

template <class Rule>
struct QuantizeDraws {
  using Params = DrawCodesParams;
  static constexpr int kThreads = kTileThreads;
  static constexpr size_t kShared = 4 * (Rule::kSharedWords + kTileWarps * kTileWords);

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Rule rule(p.format, t);
    const Key key{p.key[0], p.key[1]};
    const bool aligned = is_aligned(p.x);
    uint32_t* bytes = t.shared<uint32_t>() + Rule::kSharedWords + t.warp() * kTileWords;
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      const TileChannels channels(p.format.channels, tile);
      const void* from = element(p.x, p.x_type, tile);
      Spacing last = rule.spacing(channels.first());
      TX_ROLLED
      for (int row = 0; row < kTileRows; ++row) {
        const int i = row * kRow + 4 * t.lane();
        float x[1][4];
        load_floats<1>(from, p.x_type, i, size, aligned, x);
        Spacing spacing[4];
        TX_UNROLL
        for (int e = 0; e < 4; ++e) {
          if (channels.changes(e)) last = rule.spacing(channels.at(i + e));
          spacing[e] = last;
        }
        int32_t base[4];
        uint32_t ups[4], four = 0;
        draw_four(p, rule, key, static_cast<uint64_t>((tile + i) / 4), x[0], spacing, base, ups);
        Fours<uint8_t> counts;
        TX_UNROLL
        for (int e = 0; e < 4; ++e) {
          if (p.form != DrawForm::bits) ups[e] = static_cast<uint32_t>(ones(ups[e]));
          counts.v[e] = static_cast<uint8_t>(ups[e]);
          const uint32_t high = p.form == DrawForm::ternary ? 0 : ups[e] << p.base_bits;
          four |= (static_cast<uint32_t>(base[e]) | high) << 8 * e;
        }
        bytes[32 * row + t.lane()] = four;
        if (p.form == DrawForm::ternary) store_four(counts, p.counts + tile, i, size, true);
      }
      if (p.format.bits > 0) pack_tile(t, bytes, p.format.bits, tile, size, p.codes);
    });
  }
};

/// Five counts to a byte.
struct PackTernary {
  using Params = DrawCodesParams;
  static constexpr int kThreads = kTileThreads;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    for (int64_t i = t.index() * kCountsAByte; i < p.n; i += t.count() * kCountsAByte) {
      const int64_t left = p.n - i;
      p.ternary[i / kCountsAByte] =
          ternary_byte(p.counts + i, left < kCountsAByte ? static_cast<int>(left) : kCountsAByte);
    }
  }
};

/// Whether the wanted draw of each of a lane's four values went up: counted ones are dealt out.
TX_DEVICE void deal_four(const DrawCodesParams& p, Key key, uint64_t block, uint32_t* ups,
                         bool* up) {
  if (p.form == DrawForm::bits) {
    TX_UNROLL
    for (int e = 0; e < 4; ++e) up[e] = ups[e] >> p.draw & 1;
    return;
  }
  TX_ROLLED
  for (int d = 0; d <= p.draw; ++d) {
    const Words r = draw4(key, block, p.stream, static_cast<uint32_t>(d));
    TX_UNROLL
    for (int e = 0; e < 4; ++e) {
      up[e] = deal_one(r.w[e], p.draws - d, ups[e]);
      ups[e] -= up[e] ? 1u : 0u;
    }
  }
}

template <class Rule>
struct DequantizeDraws {
  using Params = DrawCodesParams;
  static constexpr int kThreads = kTileThreads;
  static constexpr size_t kShared = 4 * Rule::kSharedWords;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const Rule rule(p.format, t);
    const int bits = p.format.bits;
    const uint32_t base_mask = (1u << p.base_bits) - 1;
    const Key key = p.form == DrawForm::bits ? Key{} : Key{p.key[0], p.key[1]};
    const bool words = reinterpret_cast<uintptr_t>(p.codes) % 4 == 0, aligned = is_aligned(p.y);
    over_tiles(t, p.n, [&](int64_t tile, int size) {
      const TileChannels channels(p.format.channels, tile);
      Spacing spacing = rule.spacing(channels.first());
      TX_ROLLED
      for (int row = 0; row < kTileRows; ++row) {
        const int i = row * kRow + 4 * t.lane();
        const uint32_t four =
            bits == 0 ? 0 : four_codes(p.codes + tile / 8 * bits, bits, i, size, words);
        uint32_t base[4], ups[4];
        TX_UNROLL
        for (int e = 0; e < 4; ++e) {
          const uint32_t code = bits == 0 ? 0 : static_cast<uint32_t>(code_of(four, e, bits));
          base[e] = code & base_mask;
          ups[e] = code >> p.base_bits;
          if (p.form == DrawForm::ternary)
            ups[e] = i + e < size ? ternary_at(p.ternary, tile + i + e) : 0;
        }
        bool up[4] = {};
        deal_four(p, key, static_cast<uint64_t>((tile + i) / 4), ups, up);
        Fours<float> y;
        TX_UNROLL
        for (int e = 0; e < 4; ++e) {
          if (channels.changes(e)) spacing = rule.spacing(channels.at(i + e));
          y.v[e] = rule.decode(static_cast<int32_t>(base[e]) + (up[e] ? 1 : 0), spacing);
        }
        store_four(y, p.y + tile, i, size, aligned);
      }
    });
  }
};

template <class Kernel>
cudaError_t launch_codes(const DrawCodesParams& p, cudaStream_t stream) noexcept {
  return launch_tiles<Kernel>(p, p.n, Kernel::kShared, stream);
}

/// Op<table shared or one per channel>.
template <template <class> class Op>
cudaError_t launch_draws(const DrawCodesParams& p, cudaStream_t stream) noexcept {
  if (p.format.scheme != Scheme::levels || p.format.bits < 0 || p.format.bits > 8)
    return cudaErrorInvalidValue;
  return p.format.table_stride == 0 ? launch_codes<Op<LevelRule<SharedTable>>>(p, stream)
                                    : launch_codes<Op<LevelRule<ChannelTables>>>(p, stream);
}

}  // namespace

cudaError_t launch_quantize_draws(const DrawCodesParams& p, cudaStream_t stream) noexcept {
  if (p.n == 0) return cudaSuccess;
  const cudaError_t status = launch_draws<QuantizeDraws>(p, stream);
  if (status != cudaSuccess || p.form != DrawForm::ternary) return status;
  return launch<PackTernary>(p, {blocks_for(p.n, int64_t{PackTernary::kThreads} * kCountsAByte)},
                             stream);
}

cudaError_t launch_dequantize_draws(const DrawCodesParams& p, cudaStream_t stream) noexcept {
  return p.n == 0 ? cudaSuccess : launch_draws<DequantizeDraws>(p, stream);
}

}  // namespace torchext::cuda
