// An epoch of SVRG in float32: the scalar part of its steps. What is O(columns) is in the kernels.
#include <vector>

#include "../dispatch.h"
#include "inner_steps.h"

namespace torchext::cpu {

const SvrgKernels& svrg_kernels() noexcept {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return svrg_avx512();
    case Isa::avx2: return svrg_avx2();
    default: break;
  }
#endif
  return svrg_ref();
}

namespace {

/// The float32 loop of one epoch.
class Svrg {
 public:
  explicit Svrg(const SvrgEpoch& e)
      : e_(e),
        loop_(e.loop),
        kernels_(svrg_kernels()),
        outputs_(e.loop.outputs),
        stride_(loop_.pitch + 64),
        rows_(loop_, halp_kernels().words),
        changes_(loop_),
        minus_drift_(outputs_ * stride_),
        batch_rows_(static_cast<size_t>(loop_.batch)),
        steps_(static_cast<size_t>(outputs_ * loop_.batch)),
        shares_(steps_.size()) {
    for (int o = 0; o < outputs_; ++o) {
      const double* g = e.alpha_g + o * (e.cols + 1);
      float* const to = minus_drift_.data() + o * stride_;
      for (int64_t j = 0; j < e.cols; ++j) to[j] = static_cast<float>(-g[j]);
      to[loop_.pitch] = static_cast<float>(-g[e.cols]);
    }
    const auto count = static_cast<double>(loop_.batch);
    dx_ = static_cast<float>(e.dx);
    alpha_ = static_cast<float>(loop_.alpha / count);
    factor_ = static_cast<float>(loop_.alpha * e.dx / count);
    keep_ = static_cast<float>(1.0 - loop_.alpha * loop_.l2);
  }

  void run() {
    std::vector<float> dots(static_cast<size_t>(outputs_));  // z starts at 0
    for (int64_t t = 0; t < loop_.steps; ++t) {
      if (loop_.batch == 1) {
        move_by_row(t, dots.data());
      } else {
        move_by_batch(t, dots.data());
      }
    }
  }

 private:
  /// One row; dots: its products with z, then those of the next one.
  void move_by_row(int64_t t, float* dots) {
    rows_.next(t);
    form_changes(rows_[t], dots);
    changes_.fetch(rows_[t + 4]);
    SvrgStep s{};
    s.x = row(t);
    s.next = row(t + 1);
    s.ahead = rows_.ahead(t, static_cast<const uint8_t*>(loop_.x), 4 * loop_.pitch);
    s.n = loop_.pitch;
    s.keep = keep_;
    for (int o = 0; o < outputs_; ++o) {
      const float change = changes_.change[static_cast<size_t>(o)];
      s.z = z(o);
      s.minus_drift = drift(o);
      s.step = factor_ * change;
      dots[o] = kernels_.step(s);
      if (loop_.intercept) e_.z_intercept[o] += drift(o)[loop_.pitch] - alpha_ * change * e_.unit;
    }
  }

  /// A mini-batch: products and changes row by row, then the update.
  void move_by_batch(int64_t t, float* dots) {
    for (int64_t i = 0; i < loop_.batch; ++i) {
      const int64_t at = t * loop_.batch + i;
      rows_.next(at);
      changes_.fetch(rows_[at + 4]);
      batch_rows_[static_cast<size_t>(i)] = row(at);
      for (int o = 0; o < outputs_; ++o)
        dots[o] = kernels_.dot(row(at), z(o), row(at + 2), loop_.pitch);
      form_changes(rows_[at], dots);
      for (int o = 0; o < outputs_; ++o) {
        const float change = changes_.change[static_cast<size_t>(o)];
        steps_[static_cast<size_t>(o * loop_.batch + i)] = factor_ * change;
        shares_[static_cast<size_t>(o * loop_.batch + i)] = alpha_ * change * e_.unit;
      }
    }
    SvrgBatchStep s{};
    s.x = batch_rows_.data();
    s.rows = loop_.batch;
    s.n = loop_.pitch;
    s.keep = keep_;
    for (int o = 0; o < outputs_; ++o) {
      s.step = steps_.data() + o * loop_.batch;
      s.z = z(o);
      s.minus_drift = drift(o);
      kernels_.batch(s);
      if (!loop_.intercept) continue;
      float moved = e_.z_intercept[o] + drift(o)[loop_.pitch];
      for (int64_t i = 0; i < loop_.batch; ++i)
        moved -= shares_[static_cast<size_t>(o * loop_.batch + i)];
      e_.z_intercept[o] = moved;
    }
  }

  void form_changes(int64_t at, const float* dots) {
    for (int o = 0; o < outputs_; ++o)
      changes_.moved[static_cast<size_t>(o)] =
          dx_ * dots[o] + (loop_.intercept ? e_.unit * e_.z_intercept[o] : 0.0f);
    changes_.form(at);
  }

  const float* row(int64_t at) const {
    return static_cast<const float*>(loop_.x) + rows_[at] * loop_.pitch;
  }
  float* z(int o) const { return e_.z + o * loop_.pitch; }
  const float* drift(int o) const { return minus_drift_.data() + o * stride_; }

  const SvrgEpoch& e_;
  const InnerLoop& loop_;
  const SvrgKernels& kernels_;
  const int outputs_;
  const int64_t stride_;
  Rows rows_;
  Changes changes_;
  Scratch<float> minus_drift_;
  std::vector<const float*> batch_rows_;
  std::vector<float> steps_, shares_;  // [outputs, batch]
  float dx_, alpha_, factor_, keep_;
};

}  // namespace

void svrg_epoch(const SvrgEpoch& e) { Svrg(e).run(); }

}  // namespace torchext::cpu
