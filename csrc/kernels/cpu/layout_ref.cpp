// Packing of codes into the layouts of a store, by field: the definition, and fast enough for
// tools.
#include <cstring>

#include "kernels/layout.h"

namespace torchext::cpu {
namespace {

/// Calls body(row, col, base, place, shift, mask) for every field of the units [begin, end).
template <class Body>
inline void each_field(Layout layout, int64_t rows, int64_t cols, int bits, int64_t begin,
                       int64_t end, const Body& body) {
  const int64_t unit_rows = layout_unit_rows(layout),
                unit_bytes = layout_unit_bytes(layout, cols, bits);
  const Planes planes = planes_of(bits);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t first = unit * unit_rows, rest = rows - first,
                  count = rest < unit_rows ? rest : unit_rows;
    for (int k = 0; k < planes.count; ++k) {
      const int width = planes.width[k], shift = planes.shift[k];
      for (int64_t col = 0; col < cols; ++col) {
        const int64_t base = unit * unit_bytes + field_base(layout, col, cols, bits, k);
        for (int64_t r = 0; r < count; ++r) {
          const FieldPlace at = field_place(layout, r, col, width, shift);
          body((first + r) * cols + col, base + at.byte, at.shift, shift, (1u << width) - 1u);
        }
      }
    }
  }
}

}  // namespace

void pack_codes_ref(Layout layout, const void* codes, int64_t rows, int64_t cols, int bits,
                    uint8_t* out, int64_t begin, int64_t end) noexcept {
  const int64_t unit_bytes = layout_unit_bytes(layout, cols, bits);
  std::memset(out + begin * unit_bytes, 0, static_cast<size_t>((end - begin) * unit_bytes));
  const auto* narrow = static_cast<const uint8_t*>(codes);
  const auto* wide = static_cast<const uint16_t*>(codes);
  each_field(layout, rows, cols, bits, begin, end,
             [&](int64_t i, int64_t byte, int place, int shift, uint32_t mask) {
               const uint32_t code = bits > 8 ? wide[i] : narrow[i];
               out[byte] = static_cast<uint8_t>(out[byte] | (code >> shift & mask) << place);
             });
}

void unpack_codes_ref(Layout layout, const uint8_t* packed, int64_t rows, int64_t cols, int bits,
                      void* codes, int64_t begin, int64_t end) noexcept {
  auto* narrow = static_cast<uint8_t*>(codes);
  auto* wide = static_cast<uint16_t*>(codes);
  each_field(layout, rows, cols, bits, begin, end,
             [&](int64_t i, int64_t byte, int place, int shift, uint32_t mask) {
               const uint32_t field = (static_cast<uint32_t>(packed[byte]) >> place & mask)
                                      << shift;
               const uint32_t old = shift == 0 ? 0
                                    : bits > 8 ? wide[i]
                                               : narrow[i];  // plane 0 comes first
               if (bits > 8) {
                 wide[i] = static_cast<uint16_t>(old | field);
               } else {
                 narrow[i] = static_cast<uint8_t>(old | field);
               }
             });
}

}  // namespace torchext::cpu
