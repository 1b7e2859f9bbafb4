// Integer products with tile4 codes: the definition.
#include "../../linear/sgd_kernels.h"

namespace torchext::cpu {
namespace {

/// The code of a row of the chunk and column c of group g.
int tile_code(const TileArgs& a, int row, int64_t g, int c) {
  return code_at({Layout::tile4, a.bits, 64, 4},
                 a.codes + row / 64 * a.tile_bytes + g * 32 * a.bits, row % 64, c);
}

int32_t tile_value(const TileArgs& a, int set, int64_t g, int col, int code) {
  if (a.table == nullptr) return code;
  return a.table[set * a.set_bytes + (((4 * g + col) << a.bits) | code)];
}

}  // namespace

void tile_forward_ref(const TileArgs& a, const int8_t* wq, int32_t* dots,
                      const Prefetch&) noexcept {
  const int sets = a.planes * a.books, rows = 64 * a.tiles;
  for (int i = 0; i < a.outputs * sets; ++i) {
    for (int r = 0; r < rows; ++r) dots[i * a.rows + r] = 0;
  }
  for (int64_t g = a.g0; g < a.g1; ++g) {
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < 4; ++c) {
        const int code = tile_code(a, r, g, c);
        for (int set = 0; set < sets; ++set) {
          const int32_t t = tile_value(a, set, g, c, code);
          for (int o = 0; o < a.outputs; ++o)
            dots[(o * sets + set) * a.rows + r] += t * wq[o * a.cols + 4 * g + c];
        }
      }
    }
  }
}

void tile_backward_ref(const TileArgs& a, const int8_t* eq, int32_t* sums, bool add,
                       const Prefetch&) noexcept {
  const int rows = 64 * a.tiles;
  for (int64_t g = a.g0; g < a.g1; ++g) {
    for (int c = 0; c < 4; ++c) {
      const int64_t j = 4 * g + c;
      if (!add) {
        for (int i = 0; i < a.outputs * a.planes; ++i) sums[i * a.cols + j] = 0;
      }
      for (int r = 0; r < rows; ++r) {
        const int code = tile_code(a, r, g, c);
        for (int plane = 0; plane < a.planes; ++plane) {
          for (int book = 0; book < a.books; ++book) {
            const int32_t t = tile_value(a, plane * a.books + book, g, c, code);
            const int other = a.books - 1 - book;  // each draw meets the residual of the other one
            for (int o = 0; o < a.outputs; ++o) {
              sums[(o * a.planes + plane) * a.cols + j] +=
                  t * eq[(o * a.books + other) * a.rows + r];
            }
          }
        }
      }
    }
  }
}

}  // namespace torchext::cpu
