#include <cmath>
#include <cstring>

#include "count_columns.h"
#include "kernels/philox.h"

namespace torchext::cuda {
namespace {

using cpu::HistogramMap;
constexpr int64_t kRows = int64_t{1} << 14;  // of a block: fewer than 2^24, which a word counts
constexpr int64_t kSharedBytes = 64 << 10;   // of counts; every card of compute capability 8 has it

TX_DEVICE uint32_t word_of(float x) {
  uint32_t word;
  std::memcpy(&word, &x, sizeof word);
  return word;
}

/// Columns whose bins a block keeps in shared memory.
TX_HD constexpr int64_t columns_at_once(int64_t bins) {
  return kSharedBytes / (static_cast<int64_t>(sizeof(uint64_t)) * bins);
}

/// The bin of one column that a value falls in; as histogram_ref.cpp has it.
class ColumnBins {
 public:
  TX_DEVICE ColumnBins(const HistogramMap& map, int64_t j)
      : mean_(map.mean[j]),
        inverse_(map.inverse[j]),
        center_(map.center[j]),
        c_(map.c[j]),
        shift_(map.shift[j]),
        base_(map.base[j]),
        origin_(map.origin[j]),
        rest_(map.rest[j]),
        under_(map.under[j]),
        over_(map.over[j]) {}

  struct Place {
    uint32_t bin, rest;
  };
  TX_DEVICE Place find(double x) const {
    const auto a = static_cast<float>((x - mean_) * inverse_);
    const float away = a - center_, size = std::fabs(away) + c_;
    const uint32_t word = word_of(size), key = (word >> shift_) - base_;
    const uint32_t room = away < 0.0f ? under_ : over_, step = key < room ? key : room;
    return {away < 0.0f ? under_ - step : origin_ + step, word & rest_};
  }

 private:
  double mean_, inverse_;
  float center_, c_;
  uint32_t shift_, base_, origin_, rest_, under_, over_;
};

/// A block counts some adjacent columns of up to kRows rows in shared memory: a bin is 64 bits, the
/// count in units of 2^40, as two words, because shared memory adds words at full speed only.
template <class T>
struct CountColumns {
  using Params = CountParams;
  static constexpr int kThreads = 512;

  TX_DEVICE static void run(const Params& p, const Thread& t) {
    const int64_t width = columns_at_once(p.bins), groups = (p.cols + width - 1) / width;
    const int64_t parts = (p.rows + kRows - 1) / kRows;
    auto* const words = t.shared<uint32_t>();
    for (int64_t at = t.block(); at < groups * parts; at += t.blocks()) {
      const int64_t first = at % groups * width, row0 = at / groups * kRows;
      const int64_t end = row0 + kRows < p.rows ? row0 + kRows : p.rows;
      for (int64_t i = t.thread(); i < 2 * width * p.bins; i += kThreads) words[i] = 0;
      t.sync();
      const int64_t j = t.thread() % width, col = first + j;
      if (col < p.cols) {
        const HistogramMap& map = p.maps[col / cpu::kHistogramColumns];
        // Maps made for other bins would lead outside the memory.
        const int64_t stop = map.bins == static_cast<uint32_t>(p.bins) ? end : row0;
        const ColumnBins bins(map, col % cpu::kHistogramColumns);
        const T* const x = static_cast<const T*>(p.x) + col;
        for (int64_t row = row0 + t.thread() / width; row < stop; row += kThreads / width) {
          const auto place = bins.find(static_cast<double>(x[row * p.row_stride]));
          uint32_t* const bin = words + 2 * (j * p.bins + place.bin);
          const uint32_t carry = t.add(bin, place.rest) + place.rest < place.rest ? 1 : 0;
          t.add(bin + 1, (1u << 8) + carry);
        }
      }
      t.sync();
      for (int64_t i = t.thread(); i < width * p.bins; i += kThreads) {
        const uint32_t low = words[2 * i], high = words[2 * i + 1];
        if (high == 0 || first + i / p.bins >= p.cols) continue;
        int64_t* const to = p.counts + first * p.bins + i;
        t.add(to, static_cast<int64_t>(high >> 8));
        t.add(to + p.cols * p.bins, static_cast<int64_t>(high & 0xFF) << 32 | low);
      }
      t.sync();
    }
  }
};

}  // namespace

cudaError_t launch_count_columns(const CountParams& p, cudaStream_t stream) noexcept {
  if (p.rows == 0 || p.cols == 0) return cudaSuccess;
  const int64_t width = columns_at_once(p.bins);
  const int64_t work = (p.cols + width - 1) / width * ((p.rows + kRows - 1) / kRows);
  const Launch at{blocks_for(work, 1, 1 << 20), 1, static_cast<size_t>(kSharedBytes)};
  return p.f64 ? launch<CountColumns<double>>(p, at, stream)
               : launch<CountColumns<float>>(p, at, stream);
}

}  // namespace torchext::cuda
