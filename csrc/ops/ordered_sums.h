// Sums over the rows of a data set that come out the same for any number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "stable.h"

namespace torchext::ops {

/// A new float64 tensor [rows, cols] of zeros, and where it is.
struct Zeros {
  Tensor tensor;
  double* data;
  int64_t size;

  Zeros(const Tensor& like, int64_t rows, int64_t cols)
      : tensor(torch::stable::new_empty(like, {rows, cols}, ScalarType::Double)),
        data(tensor.mutable_data_ptr<double>()),
        size(rows * cols) {
    std::fill_n(data, size, 0.0);
  }
  void add(const double* part) {
    for (int64_t i = 0; i < size; ++i) data[i] += part[i];
  }
};

/// Runs work(begin, end) over [0, n) in parallel; only memory can be short inside.
template <class Work>
void parallel_work(const char* op, int64_t n, int64_t grain, Work work) {
  std::atomic<bool> done{true};
  parallel_for(n, grain, [&](int64_t b, int64_t e) {
    try {
      work(b, e);
    } catch (...) {
      done = false;
    }
  });
  TX_CHECK(done, op,
           "memory must suffice for the scratch of each thread, got an allocation failure");
}

/// Sums of `size` doubles over `count` pieces: work(piece, sums) adds to zeroed sums, join(sums)
/// takes them in order, so that no bit depends on the threads; rounds of pieces bound the memory.
template <class Work, class Join>
void ordered_sums(const char* op, int64_t count, int64_t size, Work work, Join join) {
  const int64_t round = std::min(count, std::clamp<int64_t>((int64_t{1} << 21) / size, 2, 16));
  std::vector<double> sums(static_cast<size_t>(round * size));
  for (int64_t first = 0; first < count; first += round) {
    const int64_t now = std::min(round, count - first);
    std::fill(sums.begin(), sums.begin() + now * size, 0.0);
    parallel_work(op, now, 1, [&](int64_t b, int64_t e) {
      for (int64_t c = b; c < e; ++c) work(first + c, sums.data() + c * size);
    });
    for (int64_t c = 0; c < now; ++c) join(sums.data() + c * size);
  }
}

}  // namespace torchext::ops
