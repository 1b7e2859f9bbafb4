// The float32 epoch: dense data (the baseline of every speed claim), unrounded models or residuals.
//
// A batch is cut into at most four segments of whole 16-row chunks. A segment's gradient is its own
// sum and segments are added in order, so the bits do not depend on how threads share them.
#include <algorithm>

#include "../../team.h"
#include "model_state.h"

namespace torchext::cpu {
namespace {

constexpr int kSegments = 4, kChunkRows = 16;
constexpr int64_t kAheadBytes = 96 << 10, kSmallChunk = 16 << 10;

class FloatEpoch {
 public:
  explicit FloatEpoch(const Epoch& p)
      : p_(p),
        kernels_(sgd_kernels()),
        pitch_((p.data.cols + 15) / 16 * 16),
        batch_(std::min(p.batch, p.data.rows)),
        segment_rows_((((batch_ + kSegments - 1) / kSegments) + kChunkRows - 1) / kChunkRows *
                      kChunkRows),
        rows_((batch_ + 63) / 64 * 64),
        team_(static_cast<int>(
                  std::clamp<int64_t>(p.threads, 1, (batch_ + segment_rows_ - 1) / segment_rows_)),
              p.outputs),
        state_(p, team_.size(), true),
        rounded_(p.model_bits <= 8 ? p.outputs * state_.np : 0),
        partial_(kSegments * p.outputs * state_.np),
        gradient_(p.outputs * state_.np),
        e_(p.outputs * p.books * rows_),
        totals_(kSegments * p.outputs * 32),
        stats_(kSegments * p.outputs * 2) {}

  void run() {
    team_.run([this](int rank) { walk(rank); });
    for (int64_t o = 0; o < p_.outputs; ++o) {
      for (int s = 0; s < kSegments; ++s) {
        const double* total = totals_.data() + (s * p_.outputs + o) * 32;
        p_.sums[o] += sum_lanes(total);
        p_.sums[p_.outputs + o] += sum_lanes(total + 16);
      }
    }
    state_.finish();
  }

 private:
  struct Local {
    explicit Local(const FloatEpoch& e)
        : targets(e.p_, kChunkRows),
          values(e.p_.codes != nullptr ? 2 * kChunkRows * e.pitch_ : 0),
          eq(e.rows_),
          draws(std::max(e.state_.np, e.rows_)),
          q(e.state_.np) {}
    BatchTargets targets;
    Scratch<float> values;
    Scratch<int8_t> eq;
    Scratch<uint16_t> draws;
    Scratch<int8_t> q;
  };

  void walk(int rank) {
    const int team = team_.size();
    const int64_t m = p_.outputs, np = state_.np, begin = 64 * team_part(np / 64, rank, team),
                  end = 64 * team_part(np / 64, rank + 1, team);
    const Key model_key = fold_in(p_.key, Purpose::kModel),
              act_key = fold_in(p_.key, Purpose::kAct), grad_key = fold_in(p_.key, Purpose::kGrad);
    Local local(*this);
    for (int64_t o = 0; o < m; ++o) {
      team_.word(rank, o) = kernels_.update(state_.update_args(o, 0.0), false, begin, end);
    }
    team_.barrier(rank);
    for (int64_t i = 0; i < p_.steps; ++i) {
      const uint32_t step = p_.first_step + static_cast<uint32_t>(i);
      const int64_t row0 = p_.order[i] * p_.batch, rows = std::min(p_.batch, p_.data.rows - row0);
      if (i + 1 < p_.steps) prefetch_targets(p_, p_.order[i + 1] * p_.batch, rows);
      if (p_.model_bits <= 8) {
        round_model(fold_in(model_key, step), begin, end, local);
        team_.barrier(rank);
      }
      const int first = static_cast<int>(team_part(kSegments, rank, team)),
                last = static_cast<int>(team_part(kSegments, rank + 1, team));
      for (int s = first; s < last; ++s) {
        std::memset(partial_.data() + s * m * np, 0, static_cast<size_t>(m * np) * sizeof(float));
        segment(s, i, row0, rows, rank, true, p_.residual_bits > 8, local);
      }
      if (p_.residual_bits <= 8) {
        team_.barrier(rank);
        if (rank == 0) round_residuals(rows, fold_in(act_key, step), local);
        team_.barrier(rank);
        for (int s = first; s < last; ++s) segment(s, i, row0, rows, rank, false, true, local);
      }
      team_.barrier(rank);
      for (int64_t o = 0; o < m; ++o)
        update(rank, o, begin, end, p_.gamma[i], rows, fold_in(grad_key, step));
      if (rank == 0) {
        for (int64_t o = 0; o < m; ++o) p_.sums[2 * m + o] += static_cast<double>(rows);
      }
      team_.barrier(rank);
    }
  }

  const float* model(int64_t o) const {
    return (p_.model_bits <= 8 ? rounded_.data() : state_.w.data()) + o * state_.np;
  }

  void round_model(Key key, int64_t begin, int64_t end, Local& local) {
    for (int64_t o = 0; o < p_.outputs; ++o) {
      const float scale = team_.peak(o) / top_of(p_.model_bits), inv = inverse_of(scale);
      const float* w = state_.w.data() + o * state_.np;
      kernels_.draws(key, static_cast<uint32_t>(o), 0, begin, end, local.draws.data());
      kernels_.round(w + begin, local.draws.data(), inv, top_of(p_.model_bits), end - begin,
                     local.q.data());
      for (int64_t j = begin; j < end; ++j) {
        rounded_[o * state_.np + j] =
            static_cast<float>(local.q[j - begin]) * (inv != 0.0f ? scale : 0.0f);
      }
    }
  }

  /// Both products of one segment, chunk by chunk: a chunk's rows are still cached for the second.
  void segment(int s, int64_t i, int64_t row0, int64_t rows, int rank, bool forward, bool backward,
               Local& local) {
    const int64_t m = p_.outputs, np = state_.np, last = std::min(rows, (s + 1) * segment_rows_);
    for (int64_t o = 0; forward && o < m; ++o) stats_[s * m + o] = LossLanes{};
    for (int64_t r = s * segment_rows_; r < last; r += kChunkRows) {
      const int count = static_cast<int>(std::min<int64_t>(kChunkRows, last - r));
      const Prefetch ahead = streams(s, i, r, row0 + r);
      const float* values[2];
      for (int book = 0; book < p_.books; ++book)
        values[book] = chunk(row0 + r, count, book, local);
      for (int64_t o = 0; o < m; ++o) {
        if (forward) predict(s, o, r, count, row0 + r, rank, values, ahead, local);
        for (int book = 0; backward && book < p_.books; ++book) {
          kernels_.dense_backward(values[book], pitch_, count,
                                  e_.data() + (o * p_.books + p_.books - 1 - book) * rows_ + r,
                                  pitch_, partial_.data() + (s * m + o) * np, ahead);
        }
      }
    }
    for (int64_t o = 0; forward && o < m; ++o) flush(s, o);
  }

  void flush(int s, int64_t o) {
    flush_lanes(stats_[s * p_.outputs + o], totals_.data() + (s * p_.outputs + o) * 32);
  }

  void predict(int s, int64_t o, int64_t r, int count, int64_t row, int rank,
               const float* const* values, const Prefetch& ahead, Local& local) {
    LossLanes& lanes = stats_[s * p_.outputs + o];
    for (int book = 0; book < p_.books; ++book) {
      alignas(64) float z[kChunkRows] = {};
      kernels_.dense_forward(values[book], pitch_, count, model(o), pitch_, z, ahead);
      ResidualArgs a{};
      a.rows = count;
      a.padded = kChunkRows;
      a.z = z;
      a.intercept = state_.offset(rank, o);
      a.loss = p_.loss;
      a.variance_reduced = p_.variance_reduced;
      a.e = e_.data() + (o * p_.books + book) * rows_ + r;
      local.targets.fill(a, row, o);
      kernels_.residual(a, lanes);
    }
    if (r / kChunkRows % 16 == 15) flush(s, o);  // float lanes stay short
  }

  const float* chunk(int64_t row, int count, int book, Local& local) const {
    if (p_.codes == nullptr) return p_.dense + row * pitch_;
    float* to = local.values.data() + book * kChunkRows * pitch_;
    sgd_decode(p_, nullptr, row, count, book, to, pitch_);
    return to;
  }

  Prefetch streams(int s, int64_t i, int64_t r, int64_t row) const {
    Prefetch f{};
    const int64_t bytes = kChunkRows * pitch_ * static_cast<int64_t>(sizeof(float));
    const bool diagonal = bytes < kSmallChunk;
    f.log2_streams = diagonal ? 4 : 2;
    const int streams = 1 << f.log2_streams;
    const int64_t part = bytes / streams & ~int64_t{63}, per_segment = segment_rows_ / kChunkRows;
    f.half = (part / 2 + 127) & ~int64_t{127};
    const int64_t now =
        (r - s * segment_rows_) / kChunkRows + std::max<int64_t>(1, kAheadBytes / bytes);
    for (int k = 0; k < streams; ++k) {
      // This thread's chunks in order: the rest of its segments, then the next batch's.
      int64_t later = now + (diagonal ? k : 0), to = row;
      const int team = team_.size(), rank = owner(s),
                mine = static_cast<int>(team_part(kSegments, rank + 1, team)),
                start = static_cast<int>(team_part(kSegments, rank, team));
      later += (s - start) * per_segment;
      const int64_t per_batch = (mine - start) * per_segment, step = i + later / per_batch;
      if (p_.codes == nullptr && step < p_.steps) {
        to = p_.order[step] * p_.batch + start * segment_rows_ + later % per_batch * kChunkRows;
        to = std::min(to, std::max<int64_t>(0, p_.data.rows - kChunkRows));
      }
      f.stream[k] = p_.codes == nullptr
                        ? reinterpret_cast<const uint8_t*>(p_.dense + to * pitch_) + k * part
                        : reinterpret_cast<const uint8_t*>(state_.w.data());
    }
    return f;
  }

  int owner(int s) const {
    int rank = 0;
    while (s >= team_part(kSegments, rank + 1, team_.size())) ++rank;
    return rank;
  }

  /// Rounds e to residual_bits on one scale per output; e then holds sigma_e * eq.
  void round_residuals(int64_t rows, Key key, Local& local) {
    for (int64_t o = 0; o < p_.outputs; ++o) {
      float peak = 0.0f;
      for (int s = 0; s < kSegments; ++s) {
        for (const float l : stats_[s * p_.outputs + o].peak) peak = l > peak ? l : peak;
      }
      const float scale = peak / top_of(p_.residual_bits), inv = inverse_of(scale);
      int32_t sum = 0;
      for (int book = 0; book < p_.books; ++book) {
        float* e = e_.data() + (o * p_.books + book) * rows_;
        std::fill(e + rows, e + rows_, 0.0f);  // after a short batch: what a longer one left
        kernels_.draws(key, static_cast<uint32_t>(o), static_cast<uint32_t>(book), 0, rows_,
                       local.draws.data());
        sum += kernels_.round(e, local.draws.data(), inv, top_of(p_.residual_bits), rows_,
                              local.eq.data());
        for (int64_t k = 0; k < rows_; ++k)
          e[k] = static_cast<float>(local.eq[k]) * (inv != 0.0f ? scale : 0.0f);
      }
      // The intercept's gradient, where the float sums of e were.
      for (int s = 0; s < kSegments; ++s) std::fill_n(stats_[s * p_.outputs + o].sum, 16, 0.0f);
      stats_[o].sum[0] = static_cast<float>(sum) * scale;
    }
  }

  void update(int rank, int64_t o, int64_t begin, int64_t end, double gamma, int64_t rows,
              Key key) {
    const int64_t m = p_.outputs, np = state_.np;
    const float k = 1.0f / static_cast<float>(rows * p_.books);
    float* g = gradient_.data() + o * np;
    const int used = static_cast<int>((rows + segment_rows_ - 1) / segment_rows_);
    for (int64_t j = begin; j < end; ++j) {
      float sum = partial_[o * np + j];
      for (int s = 1; s < used; ++s) sum += partial_[(s * m + o) * np + j];
      g[j] = sum * k;
    }
    UpdateArgs a = state_.update_args(o, gamma);
    a.gradient = g;
    if (p_.gradient_bits != 0)
      round_gradient(state_, kernels_, team_, a, rank, o, begin, end, key, g);
    float sum = 0.0f;
    for (int s = 0; s < used; ++s) {
      for (const float l : stats_[s * m + o].sum) sum += l;
    }
    team_.word(rank, o) = kernels_.update(a, true, begin, end);
    state_.move_intercept(rank, o, sum * k, gamma);
  }

  const Epoch& p_;
  const SgdKernels& kernels_;
  const int64_t pitch_, batch_, segment_rows_, rows_;
  Team team_;
  ModelState state_;
  Scratch<float> rounded_, partial_, gradient_, e_;
  Scratch<double> totals_;
  Scratch<LossLanes> stats_;
};

}  // namespace

void sgd_epoch_float(const Epoch& p) { FloatEpoch(p).run(); }

}  // namespace torchext::cpu
