#include "quantize_symmetric.h"

namespace torchext::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(T::kThreads)
    quantize_symmetric_kernel(const QuantizeSymmetricParams p) {
  const float inverse = inverse_step(*p.scale);
  const Key key{p.key[0], p.key[1]};
  const int64_t units = (p.n + T::kElems - 1) / T::kElems,
                stride = int64_t{gridDim.x} * T::kThreads;
  for (int64_t u = int64_t{blockIdx.x} * T::kThreads + threadIdx.x; u < units; u += stride) {
    const int64_t first = u * T::kElems;
    const auto block = static_cast<uint64_t>(first / 4);
    uint8_t* codes = p.codes + u * 4 * T::kBits;
    if (T::kVector && p.n - first >= T::kElems) {
      float x[T::kElems];
#pragma unroll
      for (int k = 0; k < T::kElems / 4; ++k) {
        const float4 v = reinterpret_cast<const float4*>(p.x + first)[k];
        x[4 * k] = v.x, x[4 * k + 1] = v.y, x[4 * k + 2] = v.z, x[4 * k + 3] = v.w;
      }
      uint32_t words[T::kBits];
      quantize_symmetric_unit<T::kBits>(x, inverse, key, block, p.stream, words);
#pragma unroll
      for (int k = 0; k < T::kBits; ++k) reinterpret_cast<uint32_t*>(codes)[k] = words[k];
    } else {
      const int64_t rest = p.n - first;
      const int count = rest < T::kElems ? static_cast<int>(rest) : T::kElems;
      quantize_symmetric_tail<T::kBits>(p.x + first, count, inverse, key, block, p.stream, codes);
    }
  }
}

template <int kBits, bool kVec>
cudaError_t launch(const QuantizeSymmetricParams& p, cudaStream_t stream) noexcept {
  using T = QuantizeSymmetricTraits<kBits, kVec>;
  const int64_t per_block = int64_t{T::kThreads} * T::kElems;
  const int64_t blocks = (p.n + per_block - 1) / per_block;
  const auto grid = static_cast<unsigned>(blocks < T::kBlocks ? blocks : T::kBlocks);
  quantize_symmetric_kernel<T><<<grid, T::kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

template <int kBits>
cudaError_t launch(const QuantizeSymmetricParams& p, cudaStream_t stream) noexcept {
  const bool aligned =
      reinterpret_cast<uintptr_t>(p.x) % 16 == 0 && reinterpret_cast<uintptr_t>(p.codes) % 4 == 0;
  return aligned ? launch<kBits, true>(p, stream) : launch<kBits, false>(p, stream);
}

}  // namespace

cudaError_t launch_quantize_symmetric(const QuantizeSymmetricParams& p, int bits,
                                      cudaStream_t stream) noexcept {
  if (p.n == 0) return cudaSuccess;
  switch (bits) {
    case 2: return launch<2>(p, stream);
    case 3: return launch<3>(p, stream);
    case 4: return launch<4>(p, stream);
    case 5: return launch<5>(p, stream);
    case 6: return launch<6>(p, stream);
    case 7: return launch<7>(p, stream);
    case 8: return launch<8>(p, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace torchext::cuda
