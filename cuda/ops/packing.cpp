// Codes between row-major order and the layouts of a store on CUDA.
#include "ops/packing.h"

#include "device.h"
#include "kernels/code_layout.h"

namespace torchext::ops {
namespace {

cuda::PackParams to_params(const Packing& p) {
  return {p.layout, const_cast<void*>(p.codes.const_data_ptr()),
          static_cast<uint8_t*>(const_cast<void*>(p.packed.const_data_ptr()))};
}

Tensor pack_codes_cuda(const Tensor& codes, int64_t bits, std::string layout) {
  constexpr const char* op = "_pack_codes";
  const Device device(codes);
  const Packing p = read_pack(op, codes, bits, layout);
  check_launch(op, cuda::launch_pack_codes(to_params(p), device.stream()));
  return p.packed;
}

Tensor unpack_codes_cuda(const Tensor& packed, int64_t rows, int64_t cols, int64_t bits,
                         std::string layout) {
  constexpr const char* op = "_unpack_codes";
  const Device device(packed);
  const Packing p = read_unpack(op, packed, rows, cols, bits, layout);
  check_launch(op, cuda::launch_unpack_codes(to_params(p), device.stream()));
  return p.codes;
}

void permute_tiles_cuda(const Tensor& packed, const Tensor& order, int64_t cols, int64_t bits,
                        Tensor out) {
  constexpr const char* op = "_permute_tiles";
  const Device device(packed);
  device.check(op, "order", order);
  device.check(op, "out", out);
  const Permutation p = read_permutation(op, packed, order, cols, bits, out);
  const bool aligned =
      reinterpret_cast<uintptr_t>(p.in) % 4 == 0 && reinterpret_cast<uintptr_t>(p.out) % 4 == 0;
  TX_CHECK(aligned, op, "packed and out must start on 4-byte boundaries, got another address");
  const cuda::MoveRowsParams move{{p.order, nullptr, 0, p.rows, p.rows}, p.in, p.out, cols, p.bits};
  check_launch(op, cuda::launch_move_rows(move, device.stream()));
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("_pack_codes", TORCH_BOX(&torchext::ops::pack_codes_cuda));
  m.impl("_permute_tiles", TORCH_BOX(&torchext::ops::permute_tiles_cuda));
  m.impl("_unpack_codes", TORCH_BOX(&torchext::ops::unpack_codes_cuda));
}
