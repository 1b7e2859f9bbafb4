// The definition of the encoding pass, by value. See encode.h for the rules and the order of the
// sums.
#include <cmath>

#include "kernels/encode.h"
#include "kernels/layout.h"

namespace torchext::cpu {
namespace {

/// Sum of a tile: lane r % 8 adds its rows in order by fma, lanes join by 4, 2, 1.
struct Lanes {
  double lane[8] = {};
  void add(int64_t row, double x, double y) { lane[row % 8] = std::fma(x, y, lane[row % 8]); }
  double sum() const {
    double s[8];
    for (int j = 0; j < 8; ++j) s[j] = lane[j];
    for (int half = 4; half > 0; half /= 2) {
      for (int j = 0; j < half; ++j) s[j] += s[j + half];
    }
    return s[0];
  }
};

struct Cell {
  float lower, upper;
  int32_t index;  // of the lower level; for a table in nearest mode of the level itself
};

float affine_level(const EncodePlan& p, int64_t col, int32_t index) {
  const float offset = p.step[col] * static_cast<float>(index);
  return p.lo[col] + offset;
}

Cell find(const EncodePlan& p, int64_t col, float a) {
  if (p.levels != nullptr) {
    int64_t node = 1;
    for (int s = 0; s < p.steps; ++s)
      node = 2 * node + (a > p.thresholds[col * p.width + node] ? 1 : 0);
    const int64_t index = node - (int64_t{1} << p.steps);
    return {p.levels[col * p.width + index], p.upper[col * p.width + index],
            static_cast<int32_t>(index)};
  }
  int32_t low = 0,
          high = p.last[col] > 0 ? p.last[col] - 1 : 0;  // the last index whose level is <= a
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (affine_level(p, col, middle) <= a) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const int32_t next = low < p.last[col] ? low + 1 : low;
  return {affine_level(p, col, low), affine_level(p, col, next), low};
}

}  // namespace

void encode_tile_ref(const EncodePlan& p, const EncodeTile& t) noexcept {
  for (int64_t i = 0, bytes = (p.cols + 3) / 4 * 32 * p.bits; i < bytes; ++i) t.codes[i] = 0;
  for (int64_t j = 0; j < p.cols; ++j) {
    Lanes sums[kMoments];
    for (int64_t r = 0; r < kEncodeTile; ++r) {
      const int64_t i = j * kEncodeTile + r;
      t.a[i] = t.q[i] = 0.0f;
      if (p.mode == EncodeMode::twice) t.q2[i] = 0.0f;
      if (r >= t.rows) continue;
      const int64_t at = r * t.row_stride + j;
      const double x =
          t.f64 ? static_cast<const double*>(t.x)[at] : static_cast<const float*>(t.x)[at];
      const auto a = static_cast<float>((x - p.mean[j]) / p.scale[j]);
      if (p.bounds != nullptr && (a < p.bounds[2 * j] || a > p.bounds[2 * j + 1])) ++t.clipped[j];
      const Cell cell = find(p, j, a);
      float q = cell.lower, q2 = q;
      uint32_t code = static_cast<uint32_t>(cell.index);
      double v = 0.0;
      if (p.mode == EncodeMode::nearest) {
        if (p.levels == nullptr && cell.upper > cell.lower &&
            a > (cell.lower + cell.upper) / 2.0f) {
          q = cell.upper;
          ++code;
        }
      } else {
        const float rise = a - cell.lower, width = cell.upper - cell.lower;
        const float f = rise / width;
        const uint64_t element =
            static_cast<uint64_t>(t.position[r]) * p.pitch + static_cast<uint64_t>(j);
        const bool two = width > 0.0f;  // a column of one level keeps code 0
        const bool up = two && unit(draw1(p.key, element, 0, 0)) < f;
        q = up ? cell.upper : cell.lower;
        v = (static_cast<double>(cell.upper) - a) * (static_cast<double>(a) - cell.lower);
        v = v > 0.0 ? v : 0.0;
        if (p.mode == EncodeMode::twice) {
          const bool up2 = two && unit(draw1(p.key, element, 0, 1)) < f;
          q2 = up2 ? cell.upper : cell.lower;
          code |= (up ? 1u : 0u) << (p.bits - 2) | (up2 ? 1u : 0u) << (p.bits - 1);
        } else {
          code += up ? 1 : 0;
        }
      }
      put_tile_code(t.codes + field_base(Layout::tile4, j, p.cols, p.bits, 0), p.bits, r, j, code);
      t.a[i] = a;
      t.q[i] = q;
      const double w = t.weight != nullptr ? t.weight[r] : 1.0, da = a, dq = q, d = dq - da;
      if (p.mode == EncodeMode::twice) {
        t.q2[i] = q2;
        const double dq2 = q2, d2 = dq2 - da, half = 0.5 * w;
        sums[kSquaredError].add(r, half * d, d);
        sums[kSquaredError].add(r, half * d2, d2);
        sums[kDecodedSquare].add(r, w * dq, dq2);
        sums[kDecoded].add(r, half, dq + dq2);
      } else {
        sums[kSquaredError].add(r, w * d, d);
        sums[kDecodedSquare].add(r, w * dq, dq);
        sums[kDecoded].add(r, w, dq);
      }
      sums[kVariance].add(r, w, v);
      sums[kVarianceSquare].add(r, w * v, v);
      sums[kExactSquare].add(r, w * da, da);
      for (int64_t o = 0; p.x0 != nullptr && o < p.outputs; ++o) {
        double* z = t.z + o * 3 * kEncodeTile;
        const double coef = p.x0[o * p.padded + j];
        z[r] = std::fma(da, coef, z[r]);
        z[kEncodeTile + r] = std::fma(dq, coef, z[kEncodeTile + r]);
        if (p.mode == EncodeMode::twice) {
          z[2 * kEncodeTile + r] = std::fma(static_cast<double>(q2), coef, z[2 * kEncodeTile + r]);
        }
      }
    }
    for (int s = 0; s < kMoments; ++s) t.moments[j * kMomentSlots + s] += sums[s].sum();
  }
}

void gradient_tile_ref(const GradientTile& t, int64_t cols) noexcept {
  for (int64_t j = 0; j < cols; ++j) {
    Lanes sums[kOutputSums];
    for (int64_t r = 0; r < kEncodeTile; ++r) {
      const int64_t i = j * kEncodeTile + r;
      const double a = t.a[i], q = t.q[i];
      const double decoded = t.q2 != nullptr ? 0.5 * (q + static_cast<double>(t.q2[i])) : q;
      sums[kExactTarget].add(r, a, t.y[r]);
      sums[kErrorTarget].add(r, decoded - a, t.y[r]);
      if (t.e == nullptr) continue;
      sums[kExactGradient].add(r, a, t.e[r]);
      sums[kDecodedGradient].add(r, q, t.eq[r]);
      if (t.q2 != nullptr) sums[kDecodedGradient].add(r, static_cast<double>(t.q2[i]), t.eq2[r]);
    }
    for (int s = 0; s < kOutputSums; ++s) t.out[j * kOutputSums + s] += sums[s].sum();
  }
}

}  // namespace torchext::cpu
