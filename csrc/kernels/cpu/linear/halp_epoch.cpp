// An epoch of HALP: the scalar part of its steps. What is O(columns) is in the kernels.
#include <vector>

#include "../../linear/halp_rules.h"
#include "../dispatch.h"
#include "inner_steps.h"

namespace torchext::cpu {

const HalpKernels& halp_kernels() noexcept {
#if defined(__x86_64__)
  static const bool vnni = has_vnni_vbmi();
  switch (active_isa()) {
    case Isa::avx512: return vnni ? halp_avx512vnni() : halp_avx2();
    case Isa::avx2: return halp_avx2();
    default: break;
  }
#endif
  return halp_ref();
}

namespace {

/// Steps whose random words are drawn together: a multiple of 4, so that their first word starts a
/// Philox block.
int64_t block_of(int outputs) {
  int64_t steps = kLoopWords;
  while (steps > 4 && steps * outputs > 2 * kLoopWords) steps /= 2;
  return steps;
}

/// The integer loop of one epoch.
class Halp {
 public:
  explicit Halp(const HalpEpoch& e)
      : e_(e),
        loop_(e.loop),
        kernels_(halp_kernels()),
        ranges_(halp_ranges(e.format)),
        outputs_(e.loop.outputs),
        block_(block_of(outputs_)),
        noise_words_(2 * ranges_.shift),
        stride_(loop_.pitch + (loop_.intercept ? 64 : 0)),
        rows_(loop_, kernels_.words),
        changes_(loop_),
        noise_(loop_, kUpdateNoise, block_ * outputs_ * noise_words_),
        coefficient_(loop_, kCoefficient, block_ * outputs_),
        decay_(loop_, kDecay, block_),
        narrow_(e.format == HalpFormat::z8),
        target_(outputs_ * stride_),
        target32_(narrow_ ? outputs_ * stride_ : 1),
        drift_(outputs_ * stride_) {
    const double grid = e.dz / static_cast<double>(int64_t{1} << ranges_.shift);
    factor_ = static_cast<float>(loop_.alpha * e.dx / grid);
    decay_each_ = loop_.alpha * loop_.l2 * static_cast<double>(int64_t{1} << ranges_.shift);
    for (int o = 0; o < outputs_; ++o) {
      for (int64_t j = 0; j < e.cols; ++j)
        target_[o * stride_ + j] = e.alpha_g[o * (e.cols + 1) + j] / grid;
      if (loop_.intercept)
        target_[o * stride_ + loop_.pitch] = e.alpha_g[o * (e.cols + 1) + e.cols] / grid;
    }
    for (int64_t i = 0; narrow_ && i < outputs_ * stride_; ++i)
      target32_[i] = static_cast<float>(target_[i]);
    if (e.nearest) {
      const uint32_t lane = 1u << (ranges_.shift - 1);
      for (int64_t i = 0; i < 64; ++i)
        half_[i] = lane * (ranges_.shift == 8 ? 0x01010101u : 0x10001u);
    }
  }

  void run() {
    const int64_t width = e_.format == HalpFormat::x16 ? 2 : 1, z_width = narrow_ ? 1 : 2;
    const auto* x = static_cast<const uint8_t*>(loop_.x);
    auto* z = static_cast<uint8_t*>(e_.z);
    std::vector<int64_t> dots(static_cast<size_t>(outputs_));  // z starts at 0
    for (int64_t t = 0; t < loop_.steps; ++t) {
      const int64_t i = t % block_;
      if (i == 0) draw(t);
      if (e_.refresh > 0 ? t % e_.refresh == 0 : t == 0) round_drift(t);
      rows_.next(t);
      const int64_t row = rows_[t];
      const int32_t decay = decay_of(i);
      form_changes(row, dots.data());
      changes_.fetch(rows_[t + 4]);
      HalpStep s{};
      s.x = x + row * loop_.pitch * width;
      s.next = x + rows_[t + 1] * loop_.pitch * width;
      s.ahead = rows_.ahead(t, x, loop_.pitch * width);
      s.n = loop_.pitch;
      s.decay = decay;
      for (int o = 0; o < outputs_; ++o) {
        const int64_t at = i * outputs_ + o;
        s.gamma = halp_coefficient(factor_ * changes_.change[static_cast<size_t>(o)],
                                   e_.nearest ? 0.5f : unit(*coefficient_.at(at)), ranges_.gamma,
                                   e_.clips + 1);
        if (e_.gammas != nullptr) e_.gammas[t * outputs_ + o] = s.gamma;
        s.z = z + o * loop_.pitch * z_width;
        s.drift = drift_at(o * stride_);
        s.noise = e_.nearest ? half_ : noise_.at(at * noise_words_);
        dots[static_cast<size_t>(o)] = kernels_.step[static_cast<int>(e_.format)](s, e_.clips);
        if (loop_.intercept) dots[static_cast<size_t>(o)] += move_intercept(o, s);
      }
    }
  }

 private:
  /// h as the kernels see it; the intercept's block is in scalar order.
  void* drift_at(int64_t i) {
    return reinterpret_cast<uint8_t*>(drift_.data()) + i * (narrow_ ? 2 : 4);
  }

  void draw(int64_t t) {
    if (!e_.nearest) {
      noise_.fill(kernels_.words, t * outputs_ * noise_words_, block_ * outputs_ * noise_words_);
      coefficient_.fill(kernels_.words, t * outputs_, block_ * outputs_);
    }
    if (decay_each_ > 0) decay_.fill(kernels_.words, t, block_);
  }

  int32_t decay_of(int64_t i) const {
    if (!(decay_each_ > 0)) return 0;
    return halp_decay(decay_each_, e_.nearest ? 0.5 : static_cast<double>(unit(*decay_.at(i))));
  }

  /// h of step t on, rounded afresh.
  void round_drift(int64_t t) {
    const int64_t refresh = e_.refresh > 0 ? t / e_.refresh : 0;
    for (int o = 0; o < outputs_; ++o) {
      const int64_t first = o * stride_;
      round_drift(kernels_, refresh, first, loop_.pitch);
      if (loop_.intercept) round_drift(halp_ref(), refresh, first + loop_.pitch, 4);
    }
  }

  void round_drift(const HalpKernels& kernels, int64_t refresh, int64_t first, int64_t n) {
    HalpDrift d{};
    d.target = narrow_ ? static_cast<const void*>(target32_.data() + first)
                       : static_cast<const void*>(target_.data() + first);
    d.drift = drift_at(first);
    d.n = n;
    d.most = ranges_.drift;
    d.key = loop_.key;
    d.block = static_cast<uint64_t>(refresh * outputs_ * stride_ + first) / 4;
    d.stream = loop_.stream;
    d.nearest = e_.nearest;
    (narrow_ ? kernels.drift_narrow : kernels.drift_wide)(d, e_.clips + 2);
  }

  void form_changes(int64_t row, const int64_t* dots) {
    const double scale = e_.dx * e_.dz;
    for (int o = 0; o < outputs_; ++o)
      changes_.moved[static_cast<size_t>(o)] =
          static_cast<float>(scale * static_cast<double>(dots[o]));
    changes_.form(row);
  }

  /// The intercept's column, whose codes are all ranges_.data, by the reference; its product with
  /// the next row.
  int64_t move_intercept(int o, HalpStep s) {
    int16_t x[64] = {}, wide[64] = {};
    int8_t x8[64] = {}, z8[64] = {};
    x[0] = static_cast<int16_t>(ranges_.data);
    x8[0] = static_cast<int8_t>(ranges_.data);
    wide[0] = static_cast<int16_t>(e_.z_intercept[o]);
    z8[0] = static_cast<int8_t>(e_.z_intercept[o]);
    s.x = s.next = e_.format == HalpFormat::x16 ? static_cast<void*>(x) : x8;
    s.z = narrow_ ? static_cast<void*>(z8) : wide;
    s.drift = drift_at(o * stride_ + loop_.pitch);
    s.n = 1;
    s.decay = 0;
    const int64_t dot = halp_ref().step[static_cast<int>(e_.format)](s, e_.clips);
    e_.z_intercept[o] = narrow_ ? z8[0] : wide[0];
    return dot;
  }

  const HalpEpoch& e_;
  const InnerLoop& loop_;
  const HalpKernels& kernels_;
  const HalpRanges ranges_;
  const int outputs_;
  const int64_t block_, noise_words_, stride_;
  Rows rows_;
  Changes changes_;
  Words noise_, coefficient_, decay_;
  const bool narrow_;
  Scratch<double> target_;
  Scratch<float> target32_;
  Scratch<int32_t> drift_;
  float factor_;
  double decay_each_;
  uint32_t half_[64];
};

}  // namespace

void halp_epoch(const HalpEpoch& e) { Halp(e).run(); }

}  // namespace torchext::cpu
