// Codes back to scaled values.
#include <algorithm>
#include <cstring>

#include "../../linear/epoch.h"

namespace torchext::cpu {
namespace {

constexpr int64_t kStretch = 512;  // whole units of the row layout at every width

/// Codes of `count` <= kStretch columns of a row, from column `first`, a multiple of kStretch. A
/// plane at a time: only the byte then changes from column to column.
void stretch_codes(const CodeLayout& l, const uint8_t* codes, int64_t row, int64_t first,
                   int64_t count, uint8_t* out) {
  const int64_t unit_rows = layout_unit_rows(l.kind), r = row % unit_rows;
  codes += row / unit_rows * layout_unit_bytes(l.kind, l.cols, l.bits);
  std::memset(out, 0, static_cast<size_t>(count));
  const Planes planes = planes_of(l.bits);
  for (int k = 0; k < planes.count; ++k) {
    const int width = planes.width[k], to = planes.shift[k], mask = (1 << width) - 1;
    const uint8_t* from = codes + field_base(l.kind, first, l.cols, l.bits, k);
    FieldPlace at = field_place(l.kind, r, first, width, to);
    const auto take = [&](int64_t j, int64_t byte) {
      out[j] = static_cast<uint8_t>(out[j] | (from[at.byte + byte] >> at.shift & mask) << to);
    };
    if (l.kind == Layout::tile4) {
      for (int64_t j = 0; j < count; ++j) take(j, j / 4 * 32 * l.bits + j % 4);
    } else if (l.kind == Layout::block) {
      for (int64_t j = 0; j < count; ++j) take(j, j * 16 * l.bits);
    } else {
      for (int64_t j0 = 0; j0 < count; j0 += 64) {
        at = field_place(l.kind, r, first + j0, width, to);
        for (int64_t j = j0; j < std::min(count, j0 + 64); ++j) take(j, j - j0);
      }
    }
  }
}

}  // namespace

void sgd_decode(const Epoch& p, const int64_t* index, int64_t row0, int64_t count, int book,
                float* out, int64_t pitch) {
  const int64_t n = p.data.cols, entries = int64_t{1} << p.data.bits, plane = p.books * n * entries;
  const uint8_t* table = p.table != nullptr ? p.table + book * n * entries : nullptr;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = index != nullptr ? index[i] : row0 + i;
    float* to = out + i * pitch;
    if (p.codes == nullptr) {
      const float* from = p.dense + row * ((n + 15) / 16 * 16);
      for (int64_t j = 0; j < n; ++j) to[j] = from[j];
      continue;
    }
    for (int64_t first = 0; first < n; first += kStretch) {
      uint8_t code[kStretch];
      const int64_t count = std::min(kStretch, n - first);
      stretch_codes(p.data, p.codes, row, first, count, code);
      for (int64_t j = first; j < first + count; ++j) {
        int t = code[j - first];
        if (table != nullptr) {
          const uint8_t* entry = table + j * entries + t;
          t = p.planes == 2 ? entry[0] | entry[plane] << 8 : entry[0];
        }
        to[j] = p.grid[2 * j] + p.grid[2 * j + 1] * static_cast<float>(t);
      }
    }
  }
}

void sgd_epoch(const Epoch& p) {
  for (int64_t i = 0; i < 3 * p.outputs; ++i) p.sums[i] = 0.0;
  if (p.steps == 0) return;
  integer_path(p) ? sgd_epoch_integer(p) : sgd_epoch_float(p);
}

}  // namespace torchext::cpu
