// From runtime widths to the kernels of the tile products.
#pragma once

#include "tile_products.h"

namespace torchext::cuda {

constexpr int64_t kBlocksWanted = 264;  // two a multiprocessor of the largest GPUs

/// Parts of `units` so that `others` launches of each make enough blocks: between `least` and
/// `most`, none of them empty.
inline int64_t parts_of(int64_t units, int64_t others, int64_t least, int64_t most) noexcept {
  int64_t parts = (kBlocksWanted + others - 1) / others;
  parts = parts < least ? least : parts > most ? most : parts;
  const int64_t wide = (units + parts - 1) / parts;
  return (units + wide - 1) / wide;
}

/// Kernel<bits, table, vectors at a time> of the width at run time.
template <template <int, bool, int> class Kernel, int kBits, class Go>
cudaError_t choose_kernel(const TileMatrix& a, int vectors, const Go& go) noexcept {
  constexpr int kMany = kBits > 6 ? 2 : 4;  // with tables that are looked up: registers are short
  if (a.table != nullptr) {
    return vectors == 1 ? go(Kernel<kBits, true, 1>{}, 1) : go(Kernel<kBits, true, kMany>{}, kMany);
  }
  return vectors == 1 ? go(Kernel<kBits, false, 1>{}, 1) : go(Kernel<kBits, false, 4>{}, 4);
}

template <template <int, bool, int> class Kernel, class Go>
cudaError_t choose_kernel(const TileMatrix& a, int vectors, const Go& go) noexcept {
  switch (a.bits) {
    case 1: return choose_kernel<Kernel, 1>(a, vectors, go);
    case 2: return choose_kernel<Kernel, 2>(a, vectors, go);
    case 3: return choose_kernel<Kernel, 3>(a, vectors, go);
    case 4: return choose_kernel<Kernel, 4>(a, vectors, go);
    case 5: return choose_kernel<Kernel, 5>(a, vectors, go);
    case 6: return choose_kernel<Kernel, 6>(a, vectors, go);
    case 7: return choose_kernel<Kernel, 7>(a, vectors, go);
    case 8: return choose_kernel<Kernel, 8>(a, vectors, go);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace torchext::cuda
