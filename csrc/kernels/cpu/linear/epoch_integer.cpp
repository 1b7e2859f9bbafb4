// The integer epoch: two integer products per mini-batch and a handful of short float loops.
//
// Threads share a mini-batch by columns: a thread reads its part of every tile in both passes, so
// the second pass finds it in the thread's own cache, and the integer partial sums add up exactly.
#include <algorithm>

#include "../../team.h"
#include "model_state.h"

namespace torchext::cpu {
namespace {

constexpr int kChunkTiles = 4;             // one call of a tile kernel
constexpr int64_t kAheadBytes = 48 << 10;  // prefetch distance
constexpr int64_t kSmallChunk = 16 << 10;  // below it the streams lie in different chunks

class IntegerEpoch {
 public:
  explicit IntegerEpoch(const Epoch& p)
      : p_(p),
        kernels_(sgd_kernels()),
        groups_((p.data.cols + 3) / 4),
        group_bytes_(32 * p.data.bits),
        tile_bytes_(groups_ * group_bytes_),
        max_tiles_((std::min(p.batch, p.data.rows) + 63) / 64),
        rows_(64 * max_tiles_),
        sets_(p.planes * p.books),
        team_(static_cast<int>(std::clamp<int64_t>(p.threads, 1, (p.data.cols + 63) / 64)),
              p.outputs),
        state_(p, team_.size(), false),
        direct_(p.data.kind == Layout::tile4 && p.batch % kTileRows == 0),
        wq_(p.outputs * state_.np),
        sums_(p.outputs * p.planes * state_.np),
        gradient_(p.gradient_bits != 0 ? p.outputs * state_.np : 0),
        dots_(team_.size() * dot_stride()) {
    if (p.table != nullptr) {  // padded groups, every set on its own cache lines
      set_bytes_ = (((groups_ * 4) << p.data.bits) + 63) / 64 * 64;
      table_ = Scratch<uint8_t>(sets_ * set_bytes_ + 64);
      const int64_t bytes = p.data.cols << p.data.bits;
      for (int s = 0; s < sets_; ++s) {
        std::memcpy(table_.data() + s * set_bytes_, p.table + s * bytes,
                    static_cast<size_t>(bytes));
      }
    }
    if (!direct_) repacked_ = Scratch<uint8_t>(max_tiles_ * tile_bytes_);
  }

  void run() {
    team_.run([this](int rank) { walk(rank); });
    state_.finish();
  }

 private:
  /// Buffers of one thread.
  struct Local {
    Local(const IntegerEpoch& e)
        : targets(e.p_, 256),
          e(e.p_.outputs * e.p_.books * e.rows_),
          eq(e.p_.outputs * e.p_.books * e.rows_),
          model_draws(e.state_.np),
          draws(e.rows_),
          sum(e.p_.outputs * e.p_.books),
          scale(e.p_.outputs),
          model(e.p_.outputs),
          beta(e.p_.outputs),
          total(32 * e.p_.outputs) {}
    BatchTargets targets;
    Scratch<float> e;
    Scratch<int8_t> eq;
    Scratch<uint16_t> model_draws, draws;
    Scratch<int32_t> sum;
    Scratch<float> scale, model, beta;  // of the residual, of the model copy, sum lo_j v_j
    Scratch<double> total;              // lanes of the loss and of e^2
  };

  int64_t dot_stride() const { return p_.outputs * sets_ * rows_; }

  void walk(int rank) {
    const int team = team_.size();
    const int64_t blocks = state_.np / 64, begin = 64 * team_part(blocks, rank, team),
                  end = 64 * team_part(blocks, rank + 1, team);
    const Key model_key = fold_in(p_.key, Purpose::kModel),
              act_key = fold_in(p_.key, Purpose::kAct), grad_key = fold_in(p_.key, Purpose::kGrad);
    Local local(*this);
    for (int64_t o = 0; o < p_.outputs; ++o) {
      team_.word(rank, o) = kernels_.update(state_.update_args(o, 0.0), false, begin, end);
    }
    // The first draws of a phase are made while others arrive.
    Key model{};
    const auto meet_for = [&](uint32_t step) {
      model = fold_in(model_key, step);
      team_.arrive(rank);
      kernels_.draws(model, 0, 0, begin, end, local.model_draws.data());
      team_.wait(rank);
    };
    meet_for(p_.first_step);
    for (int64_t i = 0; i < p_.steps; ++i) {
      const uint32_t step = p_.first_step + static_cast<uint32_t>(i);
      TileArgs tiles = tile_args(begin, end);
      const int64_t row0 = p_.order[i] * p_.batch, rows = std::min(p_.batch, p_.data.rows - row0);
      const int64_t count = (rows + 63) / 64;
      const uint8_t* codes = p_.codes + row0 / kTileRows * tile_bytes_;
      if (!direct_) {
        repack(row0, rows, tiles.g0, tiles.g1);
        codes = repacked_.data();
      }
      if (i + 1 < p_.steps) prefetch_targets(p_, p_.order[i + 1] * p_.batch, rows);
      quantize_model(model, begin, end, local);
      for (int64_t t = 0; t < count; t += kChunkTiles) {
        chunk(tiles, codes, t, count);
        kernels_.forward(tiles, wq_.data(), dots_.data() + rank * dot_stride() + 64 * t,
                         ahead(i, t, count, tiles));
      }
      // Before the others may go on: their updates replace it.
      for (int64_t o = 0; o < p_.outputs; ++o) local.beta[o] = state_.beta(o);
      const Key act = fold_in(act_key, step);
      team_.arrive(rank);
      kernels_.draws(act, 0, 0, 0, 64 * count, local.draws.data());
      team_.wait(rank);
      residuals(rank, row0, rows, 64 * count, act, local);
      for (int64_t t = 0; t < count; t += kChunkTiles) {
        chunk(tiles, codes, t, count);
        kernels_.backward(tiles, local.eq.data() + 64 * t, sums_.data(), t > 0,
                          ahead(i, t, count, tiles));
      }
      update(rank, begin, end, p_.gamma[i], rows, fold_in(grad_key, step), local);
      meet_for(step + 1);
    }
    for (int64_t o = 0; rank == 0 && o < p_.outputs; ++o) {
      p_.sums[o] += sum_lanes(local.total.data() + 32 * o);
      p_.sums[p_.outputs + o] += sum_lanes(local.total.data() + 32 * o + 16);
    }
  }

  TileArgs tile_args(int64_t begin, int64_t end) const {
    TileArgs a{};
    a.tile_bytes = tile_bytes_;
    a.g0 = begin / 4;
    a.g1 = std::min(end / 4, groups_);
    a.bits = p_.data.bits;
    a.table = p_.table != nullptr ? table_.data() : nullptr;
    a.set_bytes = set_bytes_;
    a.planes = p_.planes;
    a.books = p_.books;
    a.outputs = p_.outputs;
    a.cols = state_.np;
    a.rows = rows_;
    return a;
  }

  void chunk(TileArgs& a, const uint8_t* codes, int64_t t, int64_t count) const {
    a.codes = codes + t * tile_bytes_;
    a.tiles = static_cast<int>(std::min<int64_t>(kChunkTiles, count - t));
  }

  /// Streams through the chunk(s) that come about 48 KiB later in the order of this epoch.
  Prefetch ahead(int64_t i, int64_t t, int64_t count, const TileArgs& a) const {
    Prefetch f{};
    const int64_t segment = (a.g1 - a.g0) * group_bytes_, bytes = a.tiles * segment;
    const bool diagonal = bytes < kSmallChunk;
    f.log2_streams = diagonal ? 4 : 2;
    const int streams = 1 << f.log2_streams, per_tile = std::max(1, streams / a.tiles);
    const int64_t part = segment / per_tile & ~int64_t{63};
    f.half = (part / 2 + 127) & ~int64_t{127};
    const int64_t per_batch = (count + kChunkTiles - 1) / kChunkTiles;
    const int64_t now =
        t / kChunkTiles + std::max<int64_t>(1, kAheadBytes / std::max<int64_t>(bytes, 1));
    for (int s = 0; s < streams; ++s) {
      const int64_t later = now + (diagonal ? s : 0),
                    step = i + (per_batch == 1 ? later : later / per_batch);
      const int64_t tile = std::min<int64_t>(s / per_tile, a.tiles - 1);
      const uint8_t* base = a.codes;  // past the end of the epoch: what is cached anyway
      if (direct_ && step < p_.steps) {
        base = p_.codes + (p_.order[step] * p_.batch / kTileRows +
                           (per_batch == 1 ? 0 : later % per_batch) * kChunkTiles) *
                              tile_bytes_;
      }
      f.stream[s] = base + tile * tile_bytes_ + a.g0 * group_bytes_ + s % per_tile * part;
    }
    return f;
  }

  /// Other layouts and odd batch sizes: this thread's columns of the batch as tile4 tiles.
  void repack(int64_t row0, int64_t rows, int64_t g0, int64_t g1) {
    for (int64_t t = 0; t < (rows + 63) / 64; ++t) {
      uint8_t* tile = repacked_.data() + t * tile_bytes_;
      std::memset(tile + g0 * group_bytes_, 0,
                  static_cast<size_t>(std::max<int64_t>(0, g1 - g0) * group_bytes_));
      for (int64_t j = 4 * g0; j < std::min(4 * g1, p_.data.cols); ++j) {
        for (int64_t r = 64 * t; r < std::min(rows, 64 * t + 64); ++r) {
          put_tile_code(tile + j / 4 * group_bytes_, p_.data.bits, r % 64, j,
                        code_at(p_.data, p_.codes, row0 + r, j));
        }
      }
    }
  }

  void quantize_model(Key key, int64_t begin, int64_t end, Local& local) {
    for (int64_t o = 0; o < p_.outputs; ++o) {
      const float scale = team_.peak(o) / top_of(p_.model_bits), inv = inverse_of(scale);
      local.model[o] = inv != 0.0f ? scale : 0.0f;
      if (team_.size() > 1) state_.prefetch_beta(o);
      if (o > 0)  // the first output's are there
        kernels_.draws(key, static_cast<uint32_t>(o), 0, begin, end, local.model_draws.data());
      kernels_.round(state_.w.data() + o * state_.np + begin, local.model_draws.data(), inv,
                     top_of(p_.model_bits), end - begin, wq_.data() + o * state_.np + begin);
    }
  }

  /// Residuals of the batch and their integers: every thread computes them all, which saves a
  /// barrier.
  void residuals(int rank, int64_t row0, int64_t rows, int64_t padded, Key key, Local& local) {
    const int64_t m = p_.outputs;
    for (int64_t o = 0; o < m; ++o) {
      LossLanes lanes{};
      for (int book = 0; book < p_.books; ++book) {
        for (int64_t r = 0; r < padded; r += 256) {
          ResidualArgs a{};
          a.padded = std::min<int64_t>(256, padded - r);
          a.rows = std::min(a.padded, rows - r);
          a.dots = dots_.data() + (o * sets_ + book) * rows_ + r;
          a.slices = team_.size();
          a.slice_stride = dot_stride();
          a.planes = p_.planes;
          a.plane_stride = p_.books * rows_;
          a.sigma = local.model[o];
          a.beta = local.beta[o];
          a.intercept = state_.offset(rank, o);
          a.loss = p_.loss;
          a.variance_reduced = p_.variance_reduced;
          a.e = local.e.data() + (o * p_.books + book) * rows_ + r;
          local.targets.fill(a, row0 + r, o);
          kernels_.residual(a, lanes);
          flush_lanes(lanes, local.total.data() + 32 * o);
        }
      }
      float peak = 0.0f;
      for (const float l : lanes.peak) peak = l > peak ? l : peak;
      const float scale = peak / top_of(p_.residual_bits), inv = inverse_of(scale);
      local.scale[o] = inv != 0.0f ? scale : 0.0f;
      for (int book = 0; book < p_.books; ++book) {
        const int64_t at = (o * p_.books + book) * rows_;
        if (o > 0 || book > 0) {  // the first are there
          kernels_.draws(key, static_cast<uint32_t>(o), static_cast<uint32_t>(book), 0, padded,
                         local.draws.data());
        }
        local.sum[o * p_.books + book] =
            kernels_.round(local.e.data() + at, local.draws.data(), inv, top_of(p_.residual_bits),
                           padded, local.eq.data() + at);
      }
      if (rank == 0) p_.sums[2 * m + o] += static_cast<double>(rows);
    }
  }

  void update(int rank, int64_t begin, int64_t end, double gamma, int64_t rows, Key key,
              Local& local) {
    const int64_t m = p_.outputs;
    for (int64_t o = 0; o < m; ++o) {
      UpdateArgs a = state_.update_args(o, gamma);
      a.sums = sums_.data() + o * p_.planes * state_.np;
      // with two books the gradient is the mean of two products
      a.scale = local.scale[o] / static_cast<float>(rows * p_.books);
      int32_t sum = 0;
      for (int book = 0; book < p_.books; ++book) sum += local.sum[o * p_.books + book];
      a.sum = static_cast<float>(sum);
      if (p_.gradient_bits != 0) {
        round_gradient(state_, kernels_, team_, a, rank, o, begin, end, key,
                       gradient_.data() + o * state_.np);
      }
      const float peak = kernels_.update(a, true, begin, end);
      state_.move_intercept(rank, o, a.scale * a.sum, gamma);
      team_.word(rank, o) = peak;
    }
  }

  const Epoch& p_;
  const SgdKernels& kernels_;
  const int64_t groups_, group_bytes_, tile_bytes_, max_tiles_, rows_;
  const int sets_;
  Team team_;
  ModelState state_;
  const bool direct_;
  int64_t set_bytes_ = 0;
  Scratch<uint8_t> table_, repacked_;
  Scratch<int8_t> wq_;
  Scratch<int32_t> sums_;
  Scratch<float> gradient_;
  Scratch<int32_t> dots_;
};

}  // namespace

void sgd_epoch_integer(const Epoch& p) { IntegerEpoch(p).run(); }

}  // namespace torchext::cpu
