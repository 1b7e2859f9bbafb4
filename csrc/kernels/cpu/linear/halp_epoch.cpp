// An epoch of HALP: the scalar part of its steps. What is O(columns) is in the kernels.
#include <numeric>
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
int64_t block_of(const InnerLoop& loop) {
  int64_t steps = kLoopWords;
  while (steps > 4 && steps * loop.outputs * loop.batch > 2 * kLoopWords) steps /= 2;
  return steps;
}

/// The integer loop of one epoch.
class Halp {
 public:
  explicit Halp(const HalpEpoch& e)
      : e_(e),
        loop_(e.loop),
        kernels_(halp_kernels()),
        ranges_(halp_ranges(e.format, e.loop.batch)),
        outputs_(e.loop.outputs),
        format_(static_cast<int>(e.format)),
        width_(e.format == HalpFormat::x16 ? 2 : 1),
        z_width_(e.format == HalpFormat::z8 ? 1 : 2),
        block_(block_of(loop_)),
        noise_words_(2 * ranges_.shift),
        stride_(loop_.pitch + (loop_.intercept ? 64 : 0)),
        rows_(loop_, kernels_.words),
        changes_(loop_),
        noise_(loop_, kUpdateNoise, block_ * outputs_ * noise_words_),
        coefficient_(loop_, kCoefficient, block_ * loop_.batch * outputs_),
        decay_(loop_, kDecay, block_),
        narrow_(e.format == HalpFormat::z8 && loop_.batch == 1),
        batch_rows_(static_cast<size_t>(loop_.batch + 1)),
        gammas_(static_cast<size_t>(outputs_ * gamma_stride())),
        target_(outputs_ * stride_),
        target32_(narrow_ ? outputs_ * stride_ : 1),
        drift_(outputs_ * stride_) {
    const double grid = e.dz / static_cast<double>(int64_t{1} << ranges_.shift);
    factor_ = static_cast<float>(loop_.alpha * e.dx / (static_cast<double>(loop_.batch) * grid));
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
    std::vector<int64_t> dots(static_cast<size_t>(outputs_));  // z starts at 0
    for (int64_t t = 0; t < loop_.steps; ++t) {
      if (t % block_ == 0) draw(t);
      if (e_.refresh > 0 ? t % e_.refresh == 0 : t == 0) round_drift(t);
      if (loop_.batch == 1) {
        move_by_row(t, dots.data());
      } else {
        move_by_batch(t, dots.data());
      }
    }
  }

 private:
  /// One row; dots: its products with z, then those of the next one.
  void move_by_row(int64_t t, int64_t* dots) {
    rows_.next(t);
    form_changes(rows_[t], dots);
    changes_.fetch(rows_[t + 4]);
    HalpStep s{};
    s.x = row(t);
    s.next = row(t + 1);
    s.ahead = rows_.ahead(t, static_cast<const uint8_t*>(loop_.x), loop_.pitch * width_);
    s.n = loop_.pitch;
    s.decay = decay_of(t % block_);
    for (int o = 0; o < outputs_; ++o) {
      s.gamma = gamma_of(t, o);
      s.z = z(o);
      s.drift = drift_at(o * stride_);
      s.noise = noise_of(t, o);
      dots[o] = kernels_.step[format_](s, e_.clips);
      if (loop_.intercept) dots[o] += move_intercept(o, s.gamma, s.noise);
    }
  }

  /// A mini-batch: products and coefficients row by row, then the update.
  void move_by_batch(int64_t t, int64_t* dots) {
    for (int64_t i = 0; i < loop_.batch; ++i) {
      const int64_t at = t * loop_.batch + i;
      rows_.next(at);
      changes_.fetch(rows_[at + 4]);
      batch_rows_[static_cast<size_t>(i)] = row(at);
      for (int o = 0; o < outputs_; ++o) {
        dots[o] = kernels_.dot[format_](row(at), z(o), row(at + 2), loop_.pitch);
        if (loop_.intercept) dots[o] += int64_t{ranges_.data} * e_.z_intercept[o];
      }
      form_changes(rows_[at], dots);
      for (int o = 0; o < outputs_; ++o)
        gammas_[static_cast<size_t>(o * gamma_stride() + i)] =
            static_cast<int16_t>(gamma_of(at, o));
    }
    batch_rows_.back() = batch_rows_.front();  // with gamma 0
    HalpBatchStep s{};
    s.x = batch_rows_.data();
    s.rows = gamma_stride();
    s.n = loop_.pitch;
    s.decay = decay_of(t % block_);
    for (int o = 0; o < outputs_; ++o) {
      s.gammas = gammas_.data() + o * gamma_stride();
      s.z = z(o);
      s.drift = drift_.data() + o * stride_;
      s.noise = noise_of(t, o);
      kernels_.batch[format_](s, e_.clips);
      if (!loop_.intercept) continue;
      move_intercept(o, std::accumulate(s.gammas, s.gammas + s.rows, int32_t{0}), s.noise);
    }
  }

  const uint8_t* row(int64_t at) const {
    return static_cast<const uint8_t*>(loop_.x) + rows_[at] * loop_.pitch * width_;
  }
  void* z(int o) const { return static_cast<uint8_t*>(e_.z) + o * loop_.pitch * z_width_; }
  int64_t gamma_stride() const { return loop_.batch + loop_.batch % 2; }
  const uint32_t* noise_of(int64_t t, int o) const {
    return e_.nearest ? half_ : noise_.at((t % block_ * outputs_ + o) * noise_words_);
  }

  /// The coefficient of row number `at` of the epoch, from the changes formed last.
  int32_t gamma_of(int64_t at, int o) {
    const int64_t first = at / loop_.batch / block_ * block_ * loop_.batch;  // of the words drawn
    const float u = e_.nearest ? 0.5f : unit(*coefficient_.at((at - first) * outputs_ + o));
    const int32_t gamma = halp_coefficient(factor_ * changes_.change[static_cast<size_t>(o)], u,
                                           ranges_.gamma, e_.clips + 1);
    if (e_.gammas != nullptr) e_.gammas[at * outputs_ + o] = gamma;
    return gamma;
  }

  /// h as the kernels see it; the intercept's block is in scalar order.
  void* drift_at(int64_t i) {
    return reinterpret_cast<uint8_t*>(drift_.data()) + i * (narrow_ ? 2 : 4);
  }

  void draw(int64_t t) {
    if (!e_.nearest) {
      noise_.fill(kernels_.words, t * outputs_ * noise_words_, block_ * outputs_ * noise_words_);
      const int64_t each = loop_.batch * outputs_;
      coefficient_.fill(kernels_.words, t * each, block_ * each);
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

  /// Moves the intercept's column, whose codes are all ranges_.data, by the sum of the
  /// coefficients; its product with any row.
  int64_t move_intercept(int o, int32_t gamma, const uint32_t* noise) {
    int32_t& z = e_.z_intercept[o];
    const int64_t at = o * stride_ + loop_.pitch;  // lane 0, in scalar order
    const auto r = static_cast<int32_t>(noise[0] & ((uint32_t{1} << ranges_.shift) - 1));
    if (narrow_) {
      const int32_t drift = *static_cast<const int16_t*>(drift_at(at));
      z = halp_move<true, 8>(r, gamma, ranges_.data, drift, 0, z, e_.clips);
    } else {
      const int32_t e = r - gamma * ranges_.data - drift_.data()[at];
      z = halp_land(e, ranges_.shift, z, ranges_.z, e_.clips);
    }
    return int64_t{ranges_.data} * z;
  }

  const HalpEpoch& e_;
  const InnerLoop& loop_;
  const HalpKernels& kernels_;
  const HalpRanges ranges_;
  const int outputs_;
  const int format_;
  const int64_t width_, z_width_, block_, noise_words_, stride_;
  Rows rows_;
  Changes changes_;
  Words noise_, coefficient_, decay_;
  const bool narrow_;  // h: float32 to int16, in the order of the 8-bit step
  std::vector<const void*> batch_rows_;
  std::vector<int16_t> gammas_;  // [outputs, rows of a batch, made even]
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
