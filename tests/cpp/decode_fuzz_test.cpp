// Decoders read bytes that a stranger may have written. Random bytes in buffers of exactly the size
// that the op checks for: under the sanitizers an access outside of them ends the run.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/linear/epoch.h"
#include "kernels/quantize.h"

namespace torchext {
namespace {

constexpr int kRuns = 4000;

class Fuzz : public testing::Test {
 protected:
  int64_t below(int64_t end) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(end));
  }

  /// On the heap and without spare capacity, so that the first byte outside is poisoned.
  template <class T>
  std::unique_ptr<T[]> noise(int64_t count) {
    std::unique_ptr<T[]> made(new T[static_cast<size_t>(count)]);
    auto* bytes = reinterpret_cast<uint8_t*>(made.get());
    for (size_t i = 0; i < static_cast<size_t>(count) * sizeof(T); ++i)
      bytes[i] = static_cast<uint8_t>(random_());
    return made;
  }

  std::vector<const cpu::QuantizeKernels*> kernels() {
    std::vector<const cpu::QuantizeKernels*> all = {&cpu::quantize_ref};
    if (cpu::best_isa() >= cpu::Isa::avx2) all.push_back(&cpu::quantize_avx2);
    if (cpu::best_isa() >= cpu::Isa::avx512) all.push_back(&cpu::quantize_avx512);
    return all;
  }

  std::mt19937_64 random_{20260101};
};

TEST_F(Fuzz, PackedCodesOfEveryFormat) {
  const auto all = kernels();
  for (int run = 0; run < kRuns; ++run) {
    QuantizeParams p{};
    const auto scheme = static_cast<Scheme>(below(3));
    const int bits = static_cast<int>(scheme == Scheme::symmetric ? 2 + below(7) : 1 + below(8));
    p.n = below(200);
    const int64_t channels = 1 + below(5), inner = 1 + below(40);
    const auto step = noise<float>(channels), lo = noise<float>(channels);
    // Fewer levels than codes: the rest of the codes lie outside of the table.
    const auto count = static_cast<int32_t>(2 + below((1 << bits) - 1));
    const bool shared = below(2) == 0;
    const auto levels = noise<float>(shared ? count : count * channels);
    std::vector<int32_t> last(static_cast<size_t>(shared ? 1 : channels), count - 1);
    p.format = {scheme,
                bits,
                {step.get(), step.get(), lo.get(), channels, inner},
                {levels.get(), last.data(), count, shared ? 0 : count}};
    auto codes = noise<uint8_t>(packed_bytes(p.n, bits));
    p.codes = codes.get();
    for (const cpu::QuantizeKernels* set : all) {
      const auto plain = noise<uint8_t>(p.n);
      set->unpack(codes.get(), bits, plain.get(), 0, p.n);
      const auto values = noise<float>(p.n);
      p.y = values.get();
      set->dequantize(p, 0, p.n);
      for (int64_t i = 0; i < p.n; ++i) {
        ASSERT_LT(plain[i], 1 << bits);
        if (scheme == Scheme::levels && plain[i] >= count) {
          ASSERT_TRUE(std::isnan(values[i])) << "code " << int{plain[i]} << " of " << count;
        }
      }
    }
  }
}

TEST_F(Fuzz, RowsOfAStore) {
  for (int run = 0; run < kRuns; ++run) {
    cpu::Epoch p{};
    p.data = {static_cast<Layout>(below(3)), static_cast<int>(1 + below(8)), 1 + below(200),
              1 + below(80)};
    const auto codes = noise<uint8_t>(layout_bytes(p.data));
    const auto grid = noise<float>(2 * p.data.cols);
    p.codes = codes.get();
    p.grid = grid.get();
    p.planes = static_cast<int>(1 + below(2));
    p.books = static_cast<int>(1 + below(2));
    const auto table = noise<uint8_t>(p.planes * p.books * p.data.cols << p.data.bits);
    if (below(4) != 0) p.table = table.get();
    std::vector<int64_t> index(static_cast<size_t>(1 + below(9)));
    for (int64_t& row : index) row = below(p.data.rows);
    const auto count = static_cast<int64_t>(index.size());
    const auto out = noise<float>(count * p.data.cols);
    cpu::sgd_decode(p, index.data(), 0, count, static_cast<int>(below(p.books)), out.get(),
                    p.data.cols);
  }
}

}  // namespace
}  // namespace torchext
