// Codes back to scaled values.
#include "../../linear/epoch.h"

namespace torchext::cpu {

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
    for (int64_t j = 0; j < n; ++j) {
      int t = code_at(p.data, p.codes, row, j);
      if (table != nullptr) {
        const uint8_t* entry = table + j * entries + t;
        t = p.planes == 2 ? entry[0] | entry[plane] << 8 : entry[0];
      }
      to[j] = p.grid[2 * j] + p.grid[2 * j + 1] * static_cast<float>(t);
    }
  }
}

void sgd_epoch(const Epoch& p) {
  for (int64_t i = 0; i < 3 * p.outputs; ++i) p.sums[i] = 0.0;
  if (p.steps == 0) return;
  integer_path(p) ? sgd_epoch_integer(p) : sgd_epoch_float(p);
}

}  // namespace torchext::cpu
