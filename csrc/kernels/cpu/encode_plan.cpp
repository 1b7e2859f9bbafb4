#include "kernels/encode_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/dispatch.h"
#include "kernels/layout.h"

namespace torchext::cpu {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

float before(float x) { return std::nextafterf(x, -kInf); }

/// Thresholds of one column, ascending: the code (nearest) or the lower level (otherwise) of `a` is
/// the number of thresholds below a. "a >= L" is written as "a > the float before L".
void column_thresholds(const float* level, int64_t last, EncodeMode mode, int64_t leaves,
                       float* out) {
  std::fill(out, out + leaves, kInf);
  if (mode == EncodeMode::nearest) {
    for (int64_t i = 0; i < last; ++i) {
      const float middle = (level[i] + level[i + 1]) / 2.0f;
      out[i] = std::min(middle, before(level[i + 1]));  // adjacent floats round their middle up
    }
  } else {
    for (int64_t i = 1; i < last; ++i) out[i - 1] = before(level[i]);
  }
}

/// Sorted -> Eytzinger (breadth first) order from index 1, so that a search step is node = 2*node +
/// bit.
void eytzinger(const float* sorted, int64_t leaves, float* out) {
  for (int64_t node = 1, level = 1; node < leaves; ++node) {
    if (node == 2 * level) level *= 2;
    const int64_t step = leaves / level;
    out[node] = sorted[(node - level) * step + step / 2 - 1];
  }
}

void setup_tables(const EncodeOptions& o, EncodeSetup* s) {
  EncodePlan& p = s->plan;
  p.steps = 1;
  while ((int64_t{1} << p.steps) < o.count) ++p.steps;
  const int64_t leaves = int64_t{1} << p.steps;
  p.width = std::max<int64_t>(leaves, 16);
  for (auto* table : {&s->thresholds, &s->levels, &s->upper})
    table->assign(p.padded * p.width, 0.0f);
  std::vector<float> level(o.count), sorted(leaves);
  for (int64_t j = 0; j < o.cols; ++j) {
    for (int64_t c = 0; c < o.count; ++c) {
      const float offset = o.levels == nullptr ? o.grid[2 * j + 1] * static_cast<float>(c) : 0.0f;
      level[c] = o.levels == nullptr ? o.grid[2 * j] + offset : o.levels[j * o.count + c];
    }
    int64_t last = 0;
    for (int64_t c = 1; c < o.count; ++c) last = level[c] > level[c - 1] ? c : last;
    s->last[j] = static_cast<int32_t>(last);
    column_thresholds(level.data(), last, o.mode, leaves, sorted.data());
    eytzinger(sorted.data(), leaves, s->thresholds.data() + j * p.width);
    for (int64_t c = 0; c < p.width; ++c) {
      s->levels[j * p.width + c] = level[std::min(c, last)];
      s->upper[j * p.width + c] = level[std::min(c + 1, last)];
    }
  }
  p.thresholds = s->thresholds.data();
  p.levels = s->levels.data();
  p.upper = s->upper.data();
}

void setup_affine(const EncodeOptions& o, EncodeSetup* s) {
  EncodePlan& p = s->plan;
  for (auto* values : {&s->lo, &s->step, &s->inverse}) values->assign(p.padded, 0.0f);
  for (int64_t j = 0; j < o.cols; ++j) {
    s->lo[j] = o.grid[2 * j];
    s->step[j] = o.grid[2 * j + 1];
    s->inverse[j] = s->step[j] >= 0x1p-126f ? 1.0f / s->step[j] : 0.0f;
    s->last[j] = s->inverse[j] > 0.0f ? static_cast<int32_t>(o.count - 1) : 0;
    if (s->last[j] == 0) s->step[j] = 0.0f;  // both neighbours are the one level
  }
  p.lo = s->lo.data();
  p.step = s->step.data();
  p.inverse = s->inverse.data();
}

}  // namespace

void encode_setup(const EncodeOptions& o, EncodeSetup* s) {
  EncodePlan& p = s->plan;
  p.cols = o.cols;
  p.padded = (o.cols + 15) / 16 * 16;
  p.bits = o.bits;
  p.mode = o.mode;
  p.key = fold_in(fold_in(o.key, Purpose::kData), o.copy);
  p.pitch = static_cast<uint64_t>((o.cols + 63) / 64 * 64);
  s->mean.assign(p.padded, 0.0);
  s->scale.assign(p.padded, 1.0);
  std::copy_n(o.mean, o.cols, s->mean.begin());
  std::copy_n(o.scale, o.cols, s->scale.begin());
  p.mean = s->mean.data();
  p.scale = s->scale.data();
  if (std::all_of(s->scale.begin(), s->scale.end(), quotient_by_inverse)) {
    s->inverse_scale.resize(p.padded);
    for (int64_t j = 0; j < p.padded; ++j) s->inverse_scale[j] = 1.0 / s->scale[j];
    p.inverse_scale = s->inverse_scale.data();
  }
  s->last.assign(p.padded, 0);
  // Up to 16 levels a table search is as cheap as arithmetic and one register holds it.
  if (o.levels != nullptr || o.count <= 16) {
    setup_tables(o, s);
  } else {
    setup_affine(o, s);
  }
  p.last = s->last.data();
  if (o.bounds != nullptr) {
    s->bounds.assign(2 * p.padded, 0.0f);
    std::copy_n(o.bounds, 2 * o.cols, s->bounds.begin());
    p.bounds = s->bounds.data();
  }
  p.outputs = o.outputs;
  s->loss = o.loss;
  s->intercept.assign(o.outputs, 0.0);
  if (o.x0 != nullptr) {
    s->x0.assign(o.outputs * p.padded, 0.0);
    for (int64_t i = 0; i < o.outputs; ++i) {
      std::copy_n(o.x0 + i * o.cols, o.cols, s->x0.begin() + i * p.padded);
      if (o.intercept != nullptr) s->intercept[i] = o.intercept[i];
    }
    p.x0 = s->x0.data();
  }
}

int64_t encode_sums_size(const EncodePlan& p) noexcept {
  return (kMoments + kOutputSums * p.outputs) * p.cols + 4 * (p.outputs + 1);
}

int64_t encode_scratch_size(const EncodePlan& p) noexcept {
  const int64_t values = p.padded * kEncodeTile / 2;  // two floats a double
  return (p.mode == EncodeMode::twice ? 3 : 2) * values + 3 * p.outputs * kEncodeTile +
         p.padded * kMomentSlots + p.outputs * p.padded * kOutputSums + 6 * kEncodeTile + 16;
}

void encode_chunk(const EncodeSetup& s, const EncodeRows& rows, int64_t chunk, double* scratch,
                  double* sums, int64_t* clipped) noexcept {
  const EncodePlan& p = s.plan;
  const EncodeKernels kernels = encode_kernels();
  const int64_t m = p.outputs, values = p.padded * kEncodeTile / 2;
  const bool twice = p.mode == EncodeMode::twice, anchor = p.x0 != nullptr;
  const bool fused = kernels.sums_targets && m == 1 && !anchor;
  double* at = scratch + (64 - reinterpret_cast<uintptr_t>(scratch) % 64) % 64 / 8;  // in doubles
  const auto take = [&at](int64_t count) { return (at += count) - count; };
  auto* a = reinterpret_cast<float*>(take(values));
  auto* q = reinterpret_cast<float*>(take(values));
  auto* q2 = twice ? reinterpret_cast<float*>(take(values)) : nullptr;
  double* z = take(3 * m * kEncodeTile);
  double* moments = take(p.padded * kMomentSlots);
  double *weight = take(kEncodeTile), *y = take(kEncodeTile), *e = take(kEncodeTile),
         *eq = take(kEncodeTile), *eq2 = take(kEncodeTile);
  auto* position = reinterpret_cast<int64_t*>(take(kEncodeTile));
  double* gradients = take(m * p.padded * kOutputSums);
  std::fill(moments, moments + p.padded * kMomentSlots, 0.0);
  std::fill(gradients, gradients + m * p.padded * kOutputSums, 0.0);
  double* totals = sums + (kMoments + kOutputSums * m) * p.cols;  // [4][outputs + 1]
  std::fill(totals, totals + 4 * (m + 1), 0.0);

  const int64_t begin = chunk * kEncodeChunk, end = std::min(begin + kEncodeChunk, rows.rows);
  const int64_t tile_bytes = layout_unit_bytes(Layout::tile4, p.cols, p.bits),
                item = rows.f64 ? 8 : 4;
  for (int64_t row = begin; row < end; row += kEncodeTile) {
    const int64_t count = std::min(kEncodeTile, end - row);
    const bool weighted = rows.weight != nullptr || count < kEncodeTile;
    for (int64_t r = 0; r < kEncodeTile; ++r) {
      weight[r] = r >= count ? 0.0 : rows.weight != nullptr ? rows.weight[row + r] : 1.0;
    }
    for (int64_t r = 0; r < count; ++r) totals[m] += weight[r];
    for (int64_t r = 0; r < kEncodeTile; ++r) {
      const int64_t at = row + (r < count ? r : 0);
      position[r] = rows.position != nullptr ? rows.position[at] : rows.row0 + at;
    }
    if (anchor) std::fill(z, z + 3 * m * kEncodeTile, 0.0);
    if (fused) {
      for (int64_t r = 0; r < kEncodeTile; ++r) {
        y[r] = weight[r] * (r < count ? rows.y[row + r] : 0.0);
        totals[0] += y[r];
      }
    }
    const char* x = static_cast<const char*>(rows.x) + row * rows.row_stride * item;
    kernels.encode_tile(
        p, EncodeTile{x, rows.f64, rows.row_stride, position, count, weighted ? weight : nullptr,
                      rows.codes + row / kEncodeTile * tile_bytes, a, q, q2, z, y,
                      fused ? gradients : nullptr, moments, clipped});
    for (int64_t o = 0; o < m && !fused; ++o) {
      for (int64_t r = 0; r < kEncodeTile; ++r) {
        const double w = weight[r], label = r < count ? rows.y[(row + r) * m + o] : 0.0;
        const double* zr = z + o * 3 * kEncodeTile + r;
        y[r] = w * label;
        e[r] = eq[r] = eq2[r] = 0.0;
        totals[o] += y[r];
        if (!anchor || r >= count) continue;
        const LossAndSlope exact = anchor_loss(s.loss, zr[0] + s.intercept[o], label);
        const LossAndSlope first = anchor_loss(s.loss, zr[kEncodeTile] + s.intercept[o], label);
        e[r] = w * exact.slope;
        if (twice) {  // symmetric: either draw is multiplied by the slope at the other one
          const LossAndSlope second =
              anchor_loss(s.loss, zr[2 * kEncodeTile] + s.intercept[o], label);
          eq[r] = w * 0.5 * second.slope;
          eq2[r] = w * 0.5 * first.slope;
        } else {
          eq[r] = w * first.slope;
        }
        totals[m + 1 + o] += w * exact.loss;
        totals[2 * (m + 1) + o] += e[r];
        totals[3 * (m + 1) + o] += eq[r] + eq2[r];
      }
      kernels.gradient_tile(GradientTile{a, q, q2, y, anchor ? e : nullptr, eq, eq2,
                                         gradients + o * p.padded * kOutputSums},
                            p.cols);
    }
  }
  for (int64_t j = 0; j < p.cols; ++j) {
    for (int64_t k = 0; k < kMoments; ++k) sums[k * p.cols + j] = moments[j * kMomentSlots + k];
    for (int64_t o = 0; o < m; ++o) {
      for (int64_t k = 0; k < kOutputSums; ++k) {
        sums[(kMoments + kOutputSums * o + k) * p.cols + j] =
            gradients[(o * p.padded + j) * kOutputSums + k];
      }
    }
  }
}

}  // namespace torchext::cpu
