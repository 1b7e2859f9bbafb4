#include "sort.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace torchext::levels {
namespace {

constexpr int kBits = 11, kPasses = 6;  // 66 bits cover a key
constexpr size_t kDigits = size_t{1} << kBits, kSmall = 512;

struct Entry {
  uint64_t key;
  double weight;
};
uint64_t key(uint64_t e) { return e; }
uint64_t key(const Entry& e) { return e.key; }

uint64_t key_of(double x) {
  uint64_t u;
  std::memcpy(&u, &x, sizeof u);
  return u ^ (static_cast<uint64_t>(static_cast<int64_t>(u) >> 63) | uint64_t{1} << 63);
}

double value_of(uint64_t k) {
  const uint64_t u = k >> 63 ? k ^ uint64_t{1} << 63 : ~k;
  double x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

template <class T>
void radix_sort(std::vector<T>* data) {
  const size_t n = data->size();
  std::vector<uint32_t> counts(kPasses * kDigits, 0);
  for (const T& e : *data)
    for (int p = 0; p < kPasses; ++p)
      ++counts[static_cast<size_t>(p) * kDigits + (key(e) >> (kBits * p) & (kDigits - 1))];
  std::vector<T> other(n);
  for (int p = 0; p < kPasses; ++p) {
    uint32_t* count = counts.data() + static_cast<size_t>(p) * kDigits;
    const auto digit = [&](const T& e) { return key(e) >> (kBits * p) & (kDigits - 1); };
    if (count[digit((*data)[0])] == n) continue;  // all alike
    uint32_t at = 0;
    for (size_t d = 0; d < kDigits; ++d) {
      const uint32_t c = count[d];
      count[d] = at;
      at += c;
    }
    for (const T& e : *data) other[count[digit(e)]++] = e;
    data->swap(other);
  }
}

}  // namespace

void sort_values(double* x, double* weight, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] += 0.0;
  if (weight == nullptr) {
    if (std::is_sorted(x, x + n)) return;
    if (n <= kSmall) return std::sort(x, x + n);
    std::vector<uint64_t> keys(n);
    for (size_t i = 0; i < n; ++i) keys[i] = key_of(x[i]);
    radix_sort(&keys);
    for (size_t i = 0; i < n; ++i) x[i] = value_of(keys[i]);
    return;
  }
  std::vector<Entry> entries(n);
  for (size_t i = 0; i < n; ++i) entries[i] = {key_of(x[i]), weight[i]};
  const auto less = [](const Entry& a, const Entry& b) {
    return a.key < b.key || (a.key == b.key && a.weight < b.weight);
  };
  if (n <= kSmall) {
    std::sort(entries.begin(), entries.end(), less);
  } else {
    radix_sort(&entries);
    for (size_t i = 0; i < n;) {  // runs of one value
      size_t end = i + 1;
      while (end < n && entries[end].key == entries[i].key) ++end;
      if (end - i > 1)
        std::sort(entries.begin() + static_cast<std::ptrdiff_t>(i),
                  entries.begin() + static_cast<std::ptrdiff_t>(end), less);
      i = end;
    }
  }
  for (size_t i = 0; i < n; ++i) {
    x[i] = value_of(entries[i].key);
    weight[i] = entries[i].weight;
  }
}

}  // namespace torchext::levels
