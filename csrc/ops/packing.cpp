// Codes between row-major order and the layouts of a store.
#include "packing.h"

#include <algorithm>
#include <atomic>

namespace torchext::ops {
namespace {

/// Units that one task packs: about 64 thousand codes.
int64_t layout_grain(const CodeLayout& l) {
  return std::max<int64_t>(1, 65536 / std::max<int64_t>(1, layout_unit_rows(l.kind) * l.cols));
}

/// Runs body(begin, end) over the units of a layout.
template <class Body>
void each_unit(const CodeLayout& l, const Body& body) {
  const int64_t unit = layout_unit_rows(l.kind);
  parallel_for((l.rows + unit - 1) / unit, layout_grain(l), body);
}

Tensor pack_codes(const Tensor& codes, int64_t bits, std::string layout) {
  Packing p = read_pack("_pack_codes", codes, bits, layout);
  const CodeLayout& l = p.layout;
  const void* in = p.codes.const_data_ptr();
  auto* bytes = p.packed.mutable_data_ptr<uint8_t>();
  each_unit(l, [&](int64_t begin, int64_t end) {
    if (l.kind == Layout::tile4) {
      cpu::pack_tile4(in, l.rows, l.cols, l.bits, bytes, begin, end);
    } else {
      cpu::pack_codes_ref(l.kind, in, l.rows, l.cols, l.bits, bytes, begin, end);
    }
  });
  return p.packed;
}

Tensor unpack_codes(const Tensor& packed, int64_t rows, int64_t cols, int64_t bits,
                    std::string layout) {
  Packing p = read_unpack("_unpack_codes", packed, rows, cols, bits, layout);
  const CodeLayout& l = p.layout;
  const auto* bytes = p.packed.const_data_ptr<uint8_t>();
  void* codes = p.codes.mutable_data_ptr();
  each_unit(l, [&](int64_t begin, int64_t end) {
    if (l.kind == Layout::tile4) {
      cpu::unpack_tile4(bytes, l.rows, l.cols, l.bits, codes, begin, end);
    } else {
      cpu::unpack_codes_ref(l.kind, bytes, l.rows, l.cols, l.bits, codes, begin, end);
    }
  });
  return p.codes;
}

void permute_tiles(const Tensor& packed, const Tensor& order, int64_t cols, int64_t bits,
                   Tensor out) {
  constexpr const char* op = "_permute_tiles";
  const Permutation p = read_permutation(op, packed, order, cols, bits, out);
  for (int64_t i = 0; i < p.rows; ++i) check_range(op, "order", p.order[i], 0, p.rows - 1);
  if (p.rows == 0) return;
  std::atomic<bool> done{true};
  parallel_for((cols + 3) / 4, 16, [&](int64_t begin, int64_t end) {
    if (!cpu::permute_tile4(p.in, p.order, p.rows, cols, p.bits, p.out, begin, end)) done = false;
  });
  TX_CHECK(done, op, "memory must suffice for ", p.rows * 4,
           " bytes a thread, got an allocation failure");
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("_pack_codes", TORCH_BOX(&torchext::ops::pack_codes));
  m.impl("_permute_tiles", TORCH_BOX(&torchext::ops::permute_tiles));
  m.impl("_unpack_codes", TORCH_BOX(&torchext::ops::unpack_codes));
}
