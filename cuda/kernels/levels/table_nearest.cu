// Levels of nearest rounding; a file of its own because its kernels take as long to compile as the
// others.
#include "table_kernel.cuh"

namespace torchext::cuda {

cudaError_t launch_nearest_tables(const LevelTables& p, cudaStream_t stream) noexcept {
  return launch_tables<Cells>(p, stream);
}

}  // namespace torchext::cuda
