#include "tile_dots.cuh"
#include "tile_launch.cuh"

namespace torchext::cuda {

cudaError_t launch_dots(DotParams p, cudaStream_t stream) noexcept {
  const int sets = p.a.planes * p.a.books;
  const int64_t row_blocks = (p.a.tiles + kDotTiles - 1) / kDotTiles, blocks = (p.a.cols + 63) / 64;
  return choose_kernel<TileDots>(p.a, p.vectors, [&](auto kernel, int at_once) {
    const int64_t chunks = (p.vectors + at_once - 1) / at_once;
    p.slices = parts_of(blocks, row_blocks * chunks * sets,
                        (p.a.cols + kSliceColumns - 1) / kSliceColumns, (blocks + 1) / 2);
    const int64_t wide = 64 * ((blocks + p.slices - 1) / p.slices);
    const Launch at{row_blocks * p.slices, chunks * sets, decltype(kernel)::shared_bytes(wide)};
    return launch<decltype(kernel)>(p, at, stream);
  });
}

}  // namespace torchext::cuda
