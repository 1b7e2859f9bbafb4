// The integer products of every instruction set against the plain definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/linear/sgd_kernels.h"

namespace torchext::cpu {
namespace {

struct Kind {
  int planes, books;
  bool affine;
};
constexpr Kind kKinds[] = {
    {1, 1, true}, {1, 1, false}, {2, 1, false}, {1, 2, false}, {2, 2, false}};

/// Buffers of exactly the size a kernel may touch, so that the address sanitizer sees one byte
/// more.
struct Case {
  int bits, outputs, tiles;
  Kind kind;
  int64_t cols, groups, padded, rows, set_bytes;
  std::vector<uint8_t> codes, table;
  std::vector<int8_t> wq, eq;

  Case(int bits, Kind kind, int outputs, int tiles, int64_t cols, bool extreme)
      : bits(bits),
        outputs(outputs),
        tiles(tiles),
        kind(kind),
        cols(cols),
        groups((cols + 3) / 4),
        padded((cols + 63) / 64 * 64),
        rows(64 * tiles),
        set_bytes((((groups * 4) << bits) + 63) / 64 * 64),
        codes(static_cast<size_t>(tiles * groups * 32 * bits)),
        table(static_cast<size_t>(kind.planes * kind.books * set_bytes + 64)),
        wq(static_cast<size_t>(outputs * padded)),
        eq(static_cast<size_t>(outputs * kind.books * rows)) {
    std::mt19937 random(static_cast<unsigned>(1000 * bits + 10 * cols + outputs));
    for (uint8_t& c : codes) c = static_cast<uint8_t>(extreme ? 255 : random());
    for (uint8_t& t : table)
      t = static_cast<uint8_t>(extreme ? 255 * (random() % 8 != 0) : random());
    for (int8_t& w : wq) w = value(random, extreme);
    for (int8_t& e : eq) e = value(random, extreme);
    for (int o = 0; o < outputs; ++o) {
      for (int64_t j = cols; j < padded; ++j) wq[static_cast<size_t>(o * padded + j)] = 0;
    }
  }

  /// -127 .. 127; `extreme`: both ends in long runs, which a saturating sum does not survive.
  static int8_t value(std::mt19937& random, bool extreme) {
    if (!extreme) return static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
    return random() % 16 == 0 ? -127 : 127;
  }

  TileArgs args(int64_t g0, int64_t g1) const {
    TileArgs a{};
    a.codes = codes.data();
    a.tile_bytes = groups * 32 * bits;
    a.tiles = tiles;
    a.g0 = g0;
    a.g1 = g1;
    a.bits = bits;
    a.table = kind.affine ? nullptr : table.data();
    a.set_bytes = set_bytes;
    a.planes = kind.planes;
    a.books = kind.books;
    a.outputs = outputs;
    a.cols = padded;
    a.rows = rows;
    return a;
  }

  Prefetch ahead() const {
    Prefetch p{};
    for (const uint8_t*& s : p.stream) s = codes.data();
    p.log2_streams = 2;
    return p;
  }

  std::vector<int32_t> forward(ForwardFn* f, int64_t g0, int64_t g1) const {
    std::vector<int32_t> dots(static_cast<size_t>(outputs * kind.planes * kind.books * rows), -7);
    f(args(g0, g1), wq.data(), dots.data(), ahead());
    return dots;
  }

  /// Two calls: one that overwrites and one that adds.
  std::vector<int32_t> backward(BackwardFn* f, int64_t g0, int64_t g1) const {
    std::vector<int32_t> sums(static_cast<size_t>(outputs * kind.planes * padded), -7);
    f(args(g0, g1), eq.data(), sums.data(), false, ahead());
    f(args(g0, g1), eq.data(), sums.data(), true, ahead());
    for (int i = 0; i < outputs * kind.planes; ++i) {  // what lies past the columns is nobody's
      const auto row = sums.begin() + i * padded;
      std::fill(row, row + 4 * g0, 0);
      std::fill(row + 4 * g1, row + padded, 0);
      if (4 * g1 > cols) std::fill(row + cols, row + 4 * g1, 0);
    }
    return sums;
  }
};

struct Kernels {
  const char* name;
  ForwardFn* forward;
  BackwardFn* backward;
};

std::vector<Kernels> here() {
  std::vector<Kernels> k;
#if defined(__x86_64__)
  if (best_isa() >= Isa::avx2) k.push_back({"avx2", tile_forward_avx2, tile_backward_avx2});
  if (best_isa() >= Isa::avx512 && has_vnni_vbmi())
    k.push_back({"avx512vnni", tile_forward_avx512vnni, tile_backward_avx512vnni});
#endif
  return k;
}

void compare(const Case& c, int64_t g0, int64_t g1) {
  const std::vector<int32_t> dots = c.forward(tile_forward_ref, g0, g1),
                             sums = c.backward(tile_backward_ref, g0, g1);
  for (const Kernels& k : here()) {
    const auto text = [&] {
      return ::testing::Message() << k.name << " bits " << c.bits << " planes " << c.kind.planes
                                  << " books " << c.kind.books << " affine " << c.kind.affine
                                  << " outputs " << c.outputs << " tiles " << c.tiles << " cols "
                                  << c.cols << " groups " << g0 << " to " << g1;
    };
    ASSERT_EQ(c.forward(k.forward, g0, g1), dots) << text();
    ASSERT_EQ(c.backward(k.backward, g0, g1), sums) << text();
  }
}

class Tiles : public ::testing::TestWithParam<int> {};

TEST_P(Tiles, EqualTheReference) {
  const int64_t widths[] = {1, 4, 63, 70, 130};
  int turn = 0;
  for (const Kind& kind : kKinds) {
    for (const int outputs : {1, 2, 3, 7, 10}) {
      for (int tiles = 1; tiles <= 4; ++tiles) {
        const Case c(GetParam(), kind, outputs, tiles, widths[turn % 5], turn % 7 == 0);
        ++turn;
        compare(c, 0, c.groups);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Wide enough for several blocks of columns; a thread's part begins at a multiple of 16 groups.
TEST_P(Tiles, PartsAndExtremesEqualTheReference) {
  for (const Kind& kind : kKinds) {
    for (const bool extreme : {false, true}) {
      const Case c(GetParam(), kind, 2 - extreme, 2, 1027, extreme);
      compare(c, 0, c.groups);
      compare(c, 16, 208);
      compare(c, 240, c.groups);
      if (HasFatalFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Bits, Tiles, ::testing::Range(1, 9));

}  // namespace
}  // namespace torchext::cpu
