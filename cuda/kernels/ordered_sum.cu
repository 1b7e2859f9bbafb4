#include "ordered_sum.h"

namespace torchext::cuda {
namespace {

struct OrderedSum {
  using Params = OrderedSumParams;
  static constexpr int kThreads = 64;  // few columns: many small blocks spread over the GPU
  static constexpr int kAhead = 16;    // loads in flight

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    for (int64_t i = t.index(); i < p.size; i += t.count()) {
      double* const to = p.last != nullptr && i == p.size - 1 ? p.last : p.to + i;
      const double* part = p.parts + i;
      double sum = *to;
      int64_t c = 0;
      for (; c + kAhead <= p.count; c += kAhead, part += kAhead * p.size) {
        double held[kAhead];
        TX_UNROLL
        for (int k = 0; k < kAhead; ++k) held[k] = part[k * p.size];
        TX_UNROLL
        for (int k = 0; k < kAhead; ++k) sum += held[k];
      }
      for (; c < p.count; ++c, part += p.size) sum += *part;
      *to = sum;
    }
  }
};

}  // namespace

cudaError_t launch_ordered_sum(const OrderedSumParams& p, cudaStream_t stream) noexcept {
  return launch<OrderedSum>(p, {blocks_for(p.size, OrderedSum::kThreads)}, stream);
}

}  // namespace torchext::cuda
