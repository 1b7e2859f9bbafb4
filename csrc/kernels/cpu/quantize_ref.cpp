// The reference: its answer is the definition, on any processor.
#include "quantize_unit.h"

namespace torchext::cpu {
namespace {

struct Ref {
  static uint64_t round(const QuantizeParams& p, int64_t first, const UnitScales& u,
                        uint8_t* codes) {
    return round_unit_ref(p, first, kUnit, u, codes);
  }
  static void decode(const Format& f, const uint8_t* codes, const UnitScales& u, float* y) {
    decode_unit_ref(f, codes, kUnit, u, y);
  }
  static void pack(const uint8_t* codes, int bits, uint8_t* out) {
    pack_unit(codes, kUnit, bits, out);
  }
  static void unpack(const uint8_t* packed, int bits, uint8_t* codes) {
    unpack_unit(packed, kUnit, bits, codes);
  }
};

}  // namespace

const QuantizeKernels quantize_ref = kernels_of<Ref>();

}  // namespace torchext::cpu
