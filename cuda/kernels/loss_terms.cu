#define TX_ONE_LANE
#include "kernels/linear/loss_rules.h"
#include "loss_terms.h"
#include "ordered_sum.h"

namespace torchext::cuda {
namespace {

using cpu::kTermRows;
using cpu::kTermSums;

/// One row: what it brings to every output.
struct Row {
  const cpu::LossTerms& a;
  int64_t k;

  TX_DEVICE float z(int o) const { return a.z[o * a.z_stride + k]; }
  TX_DEVICE float score(int o) const { return a.score != nullptr ? a.score[o * a.rows + k] : 0.0f; }
  TX_DEVICE float move(int o) const {
    if (a.moved == nullptr) return 0.0f;
    const float m = a.moved[o * a.rows + k];
    return a.score != nullptr ? m + score(o) * a.length[o] : m;
  }
  TX_DEVICE float weight() const { return a.weight != nullptr ? a.weight[k] : 1.0f; }
};

/// What softmax knows of a row after a look at all its outputs.
struct Classes {
  float top, total;              // at z: the probability of o is exp(z_o - top) / total
  float moved_top, moved_total;  // at z + d
  float peak, least, mean, first, spread;

  TX_DEVICE float before(const Row& r, int o) const {
    return cpu::exp_approx(r.z(o) - top) / total;
  }
  TX_DEVICE float after(const Row& r, int o) const {
    return cpu::exp_approx(r.z(o) + r.move(o) - moved_top) / moved_total;
  }

  TX_DEVICE void look(const Row& r) {
    const int m = r.a.outputs;
    top = moved_top = -3.0e38f;
    total = moved_total = mean = first = spread = 0.0f;
    for (int o = 0; o < m; ++o) top = cpu::larger(r.z(o), top);
    for (int o = 0; o < m; ++o) total += cpu::exp_approx(r.z(o) - top);
    if (r.a.moved == nullptr) return;
    peak = least = r.move(0);
    for (int o = 0; o < m; ++o) {
      const float d = r.move(o);
      moved_top = cpu::larger(r.z(o) + d, moved_top);
      peak = cpu::larger(d, peak);
      least = d < least ? d : least;
    }
    for (int o = 0; o < m; ++o) moved_total += cpu::exp_approx(r.z(o) + r.move(o) - moved_top);
    for (int o = 0; o < m; ++o) first += after(r, o) * r.score(o);
    for (int o = 0; o < m; ++o) {
      const float s = r.score(o) - first;
      spread += after(r, o) * s * s;
      mean += before(r, o) * cpu::expm1_approx(r.move(o) - peak);
    }
  }

  TX_DEVICE cpu::Terms terms(const Row& r, int o) const {
    const float p = before(r, o);
    if (r.a.moved == nullptr)
      return {p - (r.a.y[r.k] == static_cast<float>(o) ? 1.0f : 0.0f), 0.0f};
    return {cpu::softmax_slope(p, after(r, o), r.move(o), peak, least, mean),
            o == 0 ? spread : 0.0f};
  }
};

/// A block sums a chunk of rows: of one output, or of all of them in turn where they interact.
template <bool kSoftmax>
struct LossTermsKernel {
  using Params = LossTermsParams;
  static constexpr int kThreads = 256, kEach = kTermRows / kThreads;
  static constexpr int kPitch = kTermRows + 16;  // two sums' lanes use different banks
  static constexpr size_t kShared = sizeof(float) * kTermSums * kPitch;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const cpu::LossTerms& a = p.terms;
    const int64_t begin = t.block() * kTermRows, rest = a.rows - begin;
    const int count = static_cast<int>(rest < kTermRows ? rest : kTermRows);
    Classes classes[kSoftmax ? kEach : 1];
    for (int i = 0; kSoftmax && i < kEach; ++i) {
      const int k = t.thread() + i * kThreads;
      if (k < count) classes[i].look(Row{a, begin + k});
    }
    const int first = kSoftmax ? 0 : static_cast<int>(t.row()),
              step = kSoftmax ? 1 : static_cast<int>(t.rows());
    for (int o = first; o < a.outputs; o += step) {
      TX_UNROLL
      for (int i = 0; i < kEach; ++i) {
        const int k = t.thread() + i * kThreads;
        if (k < count) put(p, t, Row{a, begin + k}, k, o, classes[kSoftmax ? i : 0]);
      }
      t.sync();
      sum(p, t, count, o);
      t.sync();
    }
  }

 private:
  TX_DEVICE static void put(const Params& p, const Thread& t, const Row& r, int k, int o,
                            const Classes& classes) {
    const cpu::LossTerms& a = p.terms;
    const float v = r.weight(), d = r.move(o), s = r.score(o);
    cpu::Terms terms;
    if constexpr (kSoftmax) {
      terms = classes.terms(r, o);
    } else {
      const float y = a.moved != nullptr ? 0.0f : a.y[o * a.rows + r.k];
      terms = cpu::output_terms(a.loss, a.moved != nullptr, r.z(o), y, d, s);
    }
    const float slope = v * terms.slope;
    if (a.slopes != nullptr) a.slopes[o * a.rows + r.k] = slope;
    float* const to = t.shared<float>() + k;
    to[0] = slope * s;
    to[kPitch] = v * terms.bent;
    to[2 * kPitch] = slope;
    to[3 * kPitch] = d * d;
  }

  /// Sixteen lanes a sum, row mod 16, in float; then these in double.
  TX_DEVICE static void sum(const Params& p, const Thread& t, int count, int o) {
    if (t.thread() >= 16 * kTermSums) return;
    const int q = t.thread() / 16, l = t.thread() % 16;
    const float* const from = t.shared<float>() + q * kPitch;
    float lane = 0.0f;
    for (int k = l; k < count; k += 16) lane += from[k];
    double total = 0.0;
    for (int k = 0; k < 16; ++k)
      total += static_cast<double>(t.shuffle(lane, t.lane() / 16 * 16 + k));
    if (l == 0) p.parts[(t.block() * p.terms.outputs + o) * kTermSums + q] = total;
  }
};

}  // namespace

cudaError_t launch_loss_terms(const LossTermsParams& p, cudaStream_t stream) noexcept {
  const cpu::LossTerms& a = p.terms;
  const int64_t chunks = (a.rows + kTermRows - 1) / kTermRows;
  const int64_t sums = int64_t{a.outputs} * kTermSums;
  const cudaError_t zeroed = zero(p.sums, sizeof(double) * static_cast<size_t>(sums), stream);
  if (zeroed != cudaSuccess || chunks == 0) return zeroed;
  using Softmax = LossTermsKernel<true>;
  using Separate = LossTermsKernel<false>;
  const int64_t outputs = a.outputs < 65535 ? a.outputs : 65535;
  const cudaError_t terms = a.loss == cpu::RowLoss::softmax
                                ? launch<Softmax>(p, {chunks, 1, Softmax::kShared}, stream)
                                : launch<Separate>(p, {chunks, outputs, Separate::kShared}, stream);
  if (terms != cudaSuccess) return terms;
  return launch_ordered_sum({p.parts, p.sums, nullptr, chunks, sums}, stream);
}

}  // namespace torchext::cuda
