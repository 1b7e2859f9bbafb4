// An epoch of SGD on CUDA, in emulation: the bits of the CPU.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "kernels/linear/sgd_epoch.h"

namespace torchext {
namespace {

/// A random problem; the members are the options of an epoch.
struct Case {
  int bits = 4, planes = 1, books = 1, outputs = 1;
  bool affine = false;
  int64_t rows = 150, cols = 35, batch = 64, steps = 3;
  cpu::Loss loss = cpu::Loss::squared_error;
  bool variance_reduced = false, anchored = false, fit_intercept = true, weighted = false;
  bool shrunk = false, averaged = true;
  int model_bits = 8, residual_bits = 8, gradient_bits = 0;
  float l1 = 0.0f, l2 = 0.01f;
  bool wrong_batch = false;
};

struct Result {
  std::vector<float> x, intercept;
  std::vector<double> average, sums;
};

class Problem {
 public:
  explicit Problem(const Case& c) : c_(c), random_(static_cast<unsigned>(c.bits + 10 * c.cols)) {
    const int64_t m = c.outputs, n = c.cols, k = c.rows;
    if (c.bits == 32) {
      pitch_ = (n + 15) / 16 * 16;
      dense_ = numbers(k * pitch_, -1.0f, 1.0f);
      for (int64_t i = 0; i < k * pitch_; ++i) {
        if (i % pitch_ >= n) dense_[static_cast<size_t>(i)] = 0.0f;
      }
    } else {
      const CodeLayout layout{Layout::tile4, c.bits, k, n};
      std::vector<uint8_t> plain(static_cast<size_t>(k * n));
      for (uint8_t& code : plain) code = static_cast<uint8_t>(random_() % (1u << c.bits));
      codes_.reset(new uint8_t[static_cast<size_t>(layout_bytes(layout))]);  // aligned to 16
      cpu::pack_codes_ref(Layout::tile4, plain.data(), k, n, c.bits, codes_.get(), 0,
                          (k + 63) / 64);
      const auto entries = static_cast<size_t>(c.planes * c.books * n) << c.bits;
      table_.reset(new uint8_t[entries + 16]);
      for (size_t i = 0; i < entries; ++i) table_[i] = static_cast<uint8_t>(random_());
    }
    const float top = c.affine        ? static_cast<float>((1 << (c.bits % 32)) - 1)
                      : c.planes == 1 ? 255.0f
                                      : 65535.0f;
    for (int64_t j = 0; j < n; ++j) {
      grid_.push_back(number(-1.0f, -0.2f));
      grid_.push_back(number(0.5f, 2.0f) / top);
    }
    y_ = numbers(k * m, -1.0f, 1.0f);
    if (c.loss == cpu::Loss::log_loss) {
      for (float& y : y_) y = y < 0.0f ? -1.0f : 1.0f;
    }
    weight_ = numbers(k, 0.5f, 2.0f);
    z0_ = numbers(k * m, -1.0f, 1.0f);
    x_ = numbers(m * n, -0.3f, 0.3f);
    intercept_ = numbers(m, -0.1f, 0.1f);
    x0_ = numbers(m * (n + 1), -0.3f, 0.3f);
    constant_ = numbers(m * (n + 1), -0.01f, 0.01f);
    shrink_ = numbers(n, 0.0f, 0.1f);
    const int64_t batches = (k + c.batch - 1) / c.batch;
    for (int64_t i = 0; i < c.steps; ++i) {
      order_.push_back((batches - 1 + 2 * i) % batches);  // the short batch first
      gamma_.push_back(0.05 / static_cast<double>(1 + i));
    }
    if (c.wrong_batch) order_[1] = batches;
  }

  Result on_cpu() {
    Result r = start();
    auto p = common<cpu::Epoch>(r);
    p.data = {Layout::tile4, c_.bits, c_.rows, c_.cols};
    p.codes = codes_.get();
    p.table = table();
    p.loss = c_.loss;
    p.key = {kSeed, kOffset};
    p.threads = 1;
    cpu::sgd_epoch(p);
    return r;
  }

  Result on_cuda() {
    Result r = start();
    const uint64_t key[2] = {kSeed, kOffset};
    auto p = common<cuda::EpochStep>(r);
    p.rows = c_.rows;
    p.cols = c_.cols;
    p.key = key;
    p.logistic = c_.loss == cpu::Loss::log_loss;
    const cuda::EpochData data{codes_.get(), table(), c_.bits};
    const size_t bytes = cuda::epoch_workspace(data, p);
    std::vector<uint8_t> memory(bytes + 256, 0xA5);
    uint8_t* aligned = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256);
    EXPECT_EQ(cuda::launch_epoch(data, p, aligned, nullptr), cudaSuccess);
    return r;
  }

  Result start() const {
    const auto m = static_cast<size_t>(c_.outputs), n = static_cast<size_t>(c_.cols);
    return {x_, intercept_, std::vector<double>(m * (n + 1), 0.5), std::vector<double>(3 * m)};
  }

 private:
  /// What the arguments of both epochs call by the same name.
  template <class Arguments>
  Arguments common(Result& r) {
    Arguments p{};
    p.grid = grid_.data();
    p.y = y_.data();
    p.weight = c_.weighted ? weight_.data() : nullptr;
    p.z0 = z0_.data();
    p.x = r.x.data();
    p.intercept = r.intercept.data();
    p.x0 = c_.anchored ? x0_.data() : nullptr;
    p.constant = c_.anchored ? constant_.data() : nullptr;
    p.x0_cols = p.constant_cols = c_.cols + 1;
    p.shrink = c_.shrunk ? shrink_.data() : nullptr;
    p.average = c_.averaged ? r.average.data() : nullptr;
    p.order = order_.data();
    p.gamma = gamma_.data();
    p.steps = c_.steps;
    p.first_step = 9;
    p.batch = c_.batch;
    p.planes = c_.planes;
    p.books = c_.books;
    p.outputs = c_.outputs;
    p.variance_reduced = c_.variance_reduced;
    p.fit_intercept = c_.fit_intercept;
    p.l1 = c_.l1;
    p.l2 = c_.l2;
    p.model_bits = c_.model_bits;
    p.residual_bits = c_.residual_bits;
    p.gradient_bits = c_.gradient_bits;
    p.dense = dense_.empty() ? nullptr : dense_.data();
    p.sums = r.sums.data();
    return p;
  }

  static constexpr uint64_t kSeed = 0x0123456789ABCDEF, kOffset = 77;

  const uint8_t* table() const { return c_.affine || c_.bits == 32 ? nullptr : table_.get(); }
  float number(float low, float high) {
    return low + (high - low) * static_cast<float>(random_() % 65536) / 65536.0f;
  }
  std::vector<float> numbers(int64_t count, float low, float high) {
    std::vector<float> v(static_cast<size_t>(count));
    for (float& x : v) x = number(low, high);
    return v;
  }

  const Case c_;
  std::mt19937 random_;
  int64_t pitch_ = 0;
  std::vector<float> dense_, grid_, y_, weight_, z0_, x_, intercept_, x0_, constant_, shrink_;
  std::unique_ptr<uint8_t[]> codes_, table_;
  std::vector<int64_t> order_;
  std::vector<double> gamma_;
};

void expect_same_bits(const Case& c, const char* what) {
  SCOPED_TRACE(what);
  Problem problem(c);
  const Result a = problem.on_cpu(), b = problem.on_cuda();
  EXPECT_NE(a.x, problem.start().x);  // it moved
  EXPECT_EQ(a.x, b.x);
  EXPECT_EQ(a.intercept, b.intercept);
  EXPECT_EQ(a.average, b.average);
  EXPECT_EQ(a.sums, b.sums);
}

TEST(CudaSgd, EveryWidthAndKindOfTable) {
  for (int bits = 1; bits <= 8; ++bits) {
    SCOPED_TRACE(bits);
    Case c;
    c.bits = bits;
    c.rows = 100;
    c.cols = 21;
    c.steps = 2;
    c.affine = true;
    expect_same_bits(c, "the code itself");
    c.affine = false;
    expect_same_bits(c, "8-bit levels");
    c.planes = 2;
    expect_same_bits(c, "16-bit levels");
    c.books = 2;
    expect_same_bits(c, "two draws");
  }
}

TEST(CudaSgd, ColumnsRowsAndBatches) {
  for (const int64_t cols : {1, 4, 64, 65, 257}) {
    Case c;
    c.cols = cols;
    c.rows = 200;
    c.steps = 2;
    expect_same_bits(c, "columns");
  }
  for (const int64_t batch : {1, 10, 64, 100, 320, 512, 1000}) {
    SCOPED_TRACE(batch);
    Case c;
    c.rows = 600;
    c.cols = 20;
    c.bits = batch % 3 == 1 ? 4 : 5;
    c.batch = batch;
    c.steps = 3;
    expect_same_bits(c, "batch");
  }
}

TEST(CudaSgd, SeveralOutputs) {
  for (const int outputs : {2, 4, 7}) {
    Case c;
    c.outputs = outputs;
    c.steps = 2;
    expect_same_bits(c, "levels");
    c.affine = true;
    c.bits = 8;
    expect_same_bits(c, "codes");
    c.gradient_bits = 8;
    expect_same_bits(c, "rounded gradients");
  }
}

/// Every term of the update, on all paths.
void every_term(Case c) {
  c.rows = 100;
  c.steps = 2;
  c.weighted = c.shrunk = true;
  expect_same_bits(c, "weights, shrinkage");
  c.anchored = true;
  c.l1 = 0.1f;
  c.outputs = 2;
  expect_same_bits(c, "anchor, l1");
  c.variance_reduced = true;
  c.fit_intercept = false;
  expect_same_bits(c, "variance reduced");
  c.loss = cpu::Loss::log_loss;
  c.fit_intercept = true;
  expect_same_bits(c, "log loss, variance reduced");
  c.variance_reduced = c.anchored = c.averaged = false;
  c.l1 = c.l2 = 0.0f;
  expect_same_bits(c, "log loss");
}

TEST(CudaSgd, EveryTermOfTheIntegerPath) {
  Case c;
  every_term(c);
  c.gradient_bits = 4;
  c.model_bits = 5;
  c.residual_bits = 3;
  every_term(c);
}

TEST(CudaSgd, EveryTermOfTheFloatPath) {
  Case c;
  c.bits = 32;
  every_term(c);
  c.model_bits = c.residual_bits = 32;
  every_term(c);
  c.bits = 3;
  c.gradient_bits = 8;
  every_term(c);
  c.model_bits = 8;
  c.books = 2;
  every_term(c);
}

TEST(CudaSgd, FloatBatches) {
  for (const int64_t batch : {1, 63, 300, 1100}) {
    SCOPED_TRACE(batch);
    Case c;
    c.bits = 32;
    c.rows = 1100;
    c.cols = 5;
    c.batch = batch;
    c.steps = 2;
    c.model_bits = c.residual_bits = 32;
    expect_same_bits(c, "float32");
  }
}

TEST(CudaSgd, ABatchThatIsNoneIsNoStep) {
  Case c;
  c.wrong_batch = true;
  c.averaged = false;
  c.steps = 2;
  for (const int bits : {4, 32}) {
    c.bits = bits;
    const Result two = Problem(c).on_cuda();
    Case first = c;
    first.steps = 1;
    first.wrong_batch = false;
    const Result one = Problem(first).on_cpu();
    EXPECT_EQ(one.x, two.x);
    EXPECT_EQ(one.intercept, two.intercept);
    EXPECT_EQ(one.sums, two.sums);
  }
}

TEST(CudaSgd, NoSteps) {
  Case c;
  c.steps = 0;
  Problem problem(c);
  const Result r = problem.on_cuda();
  EXPECT_EQ(r.x, problem.start().x);
  EXPECT_EQ(r.average, problem.start().average);
  EXPECT_EQ(r.sums, std::vector<double>(3, 0.0));
}

}  // namespace
}  // namespace torchext
