// The CUDA steps in emulation, on arrays of exactly their size, so that the sanitizer sees an
// overrun; and tables of tensors under launch geometries that the launch functions would not
// choose.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/lattice.h"
#include "kernels/lattice_table.h"
#include "kernels/optim/lattice_lists.h"

namespace torchext {
namespace {

/// A float32 tensor and all its arrays, on either side.
struct Weights {
  std::vector<float> param, center, grad, at_center, full, momentum;
  std::vector<uint8_t> codes;
  std::vector<double> stats = std::vector<double>(kLatticeSums, 1.0);
  float delta;
  LatticeTensor tensor{};

  Weights(int64_t n, CodeStore store, float spacing) : delta(spacing) {
    const auto size = static_cast<size_t>(n);
    for (auto* v : {&param, &center, &grad, &at_center, &full, &momentum}) v->resize(size);
    codes.resize(static_cast<size_t>(code_bytes(n, store)));
    for (size_t i = 0; i < size; ++i) {
      const auto k = static_cast<float>(i % 23);
      grad[i] = i % 97 == 96 ? std::nanf("") : k - 11.0f;
      at_center[i] = 0.25f * k;
      full[i] = 1.5f - k;
      center[i] = 0.125f * k;
      momentum[i] = 0.5f * k - 3.0f;
    }
    tensor.n = n;
    tensor.store = store;
  }
  LatticeTensor view() {
    tensor.number = tensor.full_number = Number::f32;
    tensor.param = param.data();
    tensor.q = codes.data();
    tensor.center = center.data();
    tensor.grad = grad.data();
    tensor.grad_center = at_center.data();
    tensor.full_grad = full.data();
    tensor.momentum = momentum.data();
    tensor.delta = delta;
    tensor.stream = static_cast<uint32_t>(tensor.n);
    return tensor;
  }
};

LatticeRule rule(int bits) {
  LatticeRule r{};
  r.lr = 0.03;
  r.weight_decay = 0.1;
  r.coef = 0.5;
  r.momentum = 0.9;
  r.bits = bits;
  r.lattice = true;
  r.key = Key{42, 7};
  return r;
}

void step_on_cpu(Weights& w, int bits) {
  const LatticeTensor a = w.view();
  const int64_t chunks = lattice_chunks(a.n);
  std::vector<double> sums(static_cast<size_t>(chunks * kLatticeSums));
  cpu::lattice_ref.step(rule(bits), a, 0, a.n, sums.data());
  add_lattice_sums(sums.data(), chunks, w.stats.data());
}

void step_on_cuda(std::vector<Weights>& list, int bits) {
  std::vector<cuda::LatticeItem> items;
  for (Weights& w : list) items.push_back({w.view(), &w.delta, w.stats.data()});
  const auto count = static_cast<int64_t>(items.size());
  std::vector<double> sums(
      static_cast<size_t>(kLatticeSums * cuda::lattice_chunks_of(items.data(), count)));
  const uint64_t key[2] = {42, 7};
  const cuda::LatticeStepArgs args{rule(bits), key, nullptr, false, sums.data()};
  EXPECT_EQ(cuda::launch_lattice_step(args, items.data(), count, nullptr), cudaSuccess);
}

TEST(CudaLattice, StepsStayInsideAndHaveTheBitsOfTheCpu) {
  const struct {
    CodeStore store;
    int bits;
  } stores[] = {{CodeStore::int4, 4},
                {CodeStore::int8, 8},
                {CodeStore::int16, 12},
                {CodeStore::f32, 8},
                {CodeStore::f64, 8}};
  for (const auto& s : stores) {
    std::vector<Weights> ours;
    for (int64_t n = 0; n < 40; ++n) ours.emplace_back(n, s.store, n == 5 ? 0.0f : 0.25f);
    for (const int64_t n : {1023, 1024, 1025, 2100}) ours.emplace_back(n, s.store, 0.125f);
    std::vector<Weights> theirs = ours;
    step_on_cuda(ours, s.bits);
    for (size_t k = 0; k < ours.size(); ++k) {
      step_on_cpu(theirs[k], s.bits);
      EXPECT_EQ(ours[k].codes, theirs[k].codes) << k;
      EXPECT_EQ(ours[k].param, theirs[k].param) << k;
      EXPECT_EQ(ours[k].momentum, theirs[k].momentum) << k;
      EXPECT_EQ(ours[k].stats, theirs[k].stats) << k;
    }
  }
}

TEST(CudaLattice, PlacesAndEncodesStayInside) {
  for (const CodeStore store : {CodeStore::int4, CodeStore::int8, CodeStore::int16}) {
    for (const int64_t n : {1, 2, 3, 6, 127, 1027}) {
      Weights w(n, store, 0.25f);
      for (size_t i = 0; i < w.param.size(); ++i) w.param[i] = static_cast<float>(i % 9) - 4.0f;
      const cuda::LatticeItem item{w.view(), &w.delta, nullptr};
      EXPECT_EQ(cuda::launch_lattice_encode(4, &item, 1, nullptr), cudaSuccess);
      EXPECT_EQ(w.param[0], -2.0f);  // saturated
      const std::vector<float> centers = w.center;
      EXPECT_EQ(cuda::launch_lattice_place(true, &item, 1, nullptr), cudaSuccess);
      EXPECT_EQ(w.center, w.param);
      EXPECT_EQ(w.param[0], centers[0] - 2.0f);
      for (const uint8_t byte : w.codes) EXPECT_EQ(byte, 0);
    }
  }
}

/// Counts how often each chunk of a table is visited, by lane 0 of its warp.
struct Visit {
  struct Params {
    cuda::LatticeTable table;
    int32_t* visits;
  };
  static constexpr int kThreads = 96;
  TX_DEVICE static void run(const Params& p, const cuda::Thread& t) {
    cuda::over_chunks(p.table, t, [&](int i, int64_t chunk) {
      if (t.lane() == 0) t.add(p.visits + p.table.first[i] + chunk, int32_t{1});
    });
  }
};

TEST(CudaLattice, EveryChunkIsVisitedOnceByAnyNumberOfBlocks) {
  std::vector<cuda::LatticeItem> items(70);
  for (size_t k = 0; k < items.size(); ++k)
    items[k].tensor.n = static_cast<int64_t>(k * 331 % 7) * 700;  // some are empty
  for (const int64_t blocks : {1, 2, 5, 40}) {
    int64_t chunks = 0;
    int tables = 0;
    const auto status =
        cuda::over_tables(items.data(), 70, [&](const cuda::LatticeTable& table, int64_t before) {
          EXPECT_EQ(before, chunks);
          const int64_t all = table.first[table.count];
          std::vector<int32_t> visits(static_cast<size_t>(all));
          EXPECT_EQ(cuda::launch<Visit>({table, visits.data()}, {blocks}, nullptr), cudaSuccess);
          for (const int32_t v : visits) EXPECT_EQ(v, 1);
          chunks += all;
          ++tables;
          return cudaSuccess;
        });
    EXPECT_EQ(status, cudaSuccess);
    EXPECT_EQ(tables, 2);  // 60 tensors have elements, 32 fit
    EXPECT_EQ(chunks, cuda::lattice_chunks_of(items.data(), 70));
  }
}

TEST(CudaLattice, ThreeLevelsOfSumsAreATreeSum) {
  // Sums of 1024 * 1024 + 5 chunks, as they would come from a billion weights.
  const int64_t chunks = kTreeChunk * kTreeChunk + 5;
  std::vector<double> sums(static_cast<size_t>(chunks));
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = 1.0 / (1.0 + static_cast<double>(i % 1000));
  const double expected = tree_sum(chunks, [&](int64_t i) { return sums[static_cast<size_t>(i)]; });
  double result = 2.0;
  cuda::LatticeTable table{};
  table.count = 1;
  table.first[1] = chunks;
  table.items[0].result = &result;
  EXPECT_EQ(cuda::fold_sums(table, 1, sums.data(), nullptr), cudaSuccess);
  EXPECT_EQ(result, 2.0 + expected);
}

}  // namespace
}  // namespace torchext
