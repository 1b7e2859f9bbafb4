#include "tile_launch.cuh"
#include "tile_sums.cuh"

namespace torchext::cuda {

cudaError_t launch_sums(const SumParams& p, cudaStream_t stream) noexcept {
  const int sets = p.a.planes * p.a.books;
  return choose_kernel<TileSums>(p.a, p.vectors, [&](auto kernel, int at_once) {
    const int64_t splits = (p.a.tiles + p.split_tiles - 1) / p.split_tiles,
                  blocks = (p.a.cols + 63) / 64, chunks = (p.vectors + at_once - 1) / at_once;
    const Launch at{blocks * splits, chunks * sets, decltype(kernel)::shared_bytes(p.split_tiles)};
    return launch<decltype(kernel)>(p, at, stream);
  });
}

}  // namespace torchext::cuda
