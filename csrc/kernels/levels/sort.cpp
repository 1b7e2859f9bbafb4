#include "sort.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace torchext::levels {
namespace {

constexpr size_t kTiny = 64;  // so few values are sorted by comparison

struct Entry {
  uint64_t key;
  double weight;
};
uint64_t key(uint32_t e) { return e; }
uint64_t key(uint64_t e) { return e; }
uint64_t key(const Entry& e) { return e.key; }

// Keys are unsigned and have the order of the values.
template <class Key, class Real>
Key key_of(Real x) {
  constexpr int kTop = 8 * sizeof(Key) - 1;
  Key u;
  std::memcpy(&u, &x, sizeof u);
  return u >> kTop ? ~u : u | Key{1} << kTop;
}

template <class Real, class Key>
Real value_of(Key k) {
  constexpr int kTop = 8 * sizeof(Key) - 1;
  const Key u = k >> kTop ? k ^ Key{1} << kTop : ~k;
  Real x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

/// Least significant digit first; digits that all share are skipped.
template <class T, int kBits, int kPasses>
void radix_sort(std::vector<T>* data) {
  constexpr size_t kDigits = size_t{1} << kBits;
  const size_t n = data->size();
  std::vector<uint32_t> counts(kPasses * kDigits, 0);
  for (const T& e : *data)
    for (int p = 0; p < kPasses; ++p)
      ++counts[static_cast<size_t>(p) * kDigits + (key(e) >> (kBits * p) & (kDigits - 1))];
  std::vector<T> other(n);
  for (int p = 0; p < kPasses; ++p) {
    uint32_t* count = counts.data() + static_cast<size_t>(p) * kDigits;
    const auto digit = [&](const T& e) { return key(e) >> (kBits * p) & (kDigits - 1); };
    if (count[digit((*data)[0])] == n) continue;
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

/// Few values have few digits, whose counts would otherwise cost more than the values.
template <class T, int kSmallPasses, int kLargePasses>
void sort_keys(std::vector<T>* data) {
  const auto less = [](const T& a, const T& b) { return key(a) < key(b); };
  if (data->size() <= kTiny) {
    std::stable_sort(data->begin(), data->end(), less);
  } else if (data->size() <= 4096) {
    radix_sort<T, 8, kSmallPasses>(data);
  } else {
    radix_sort<T, 11, kLargePasses>(data);
  }
}

}  // namespace

void sort_floats(const float* x, size_t n, double* out) {
  std::vector<uint32_t> keys(n);
  for (size_t i = 0; i < n; ++i) keys[i] = key_of<uint32_t>(x[i] + 0.0f);
  if (!std::is_sorted(keys.begin(), keys.end())) sort_keys<uint32_t, 4, 3>(&keys);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<double>(value_of<float>(keys[i]));
}

void sort_values(double* x, double* weight, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] += 0.0;
  if (weight == nullptr) {
    if (std::is_sorted(x, x + n)) return;
    std::vector<uint64_t> keys(n);
    for (size_t i = 0; i < n; ++i) keys[i] = key_of<uint64_t>(x[i]);
    sort_keys<uint64_t, 8, 6>(&keys);
    for (size_t i = 0; i < n; ++i) x[i] = value_of<double>(keys[i]);
    return;
  }
  std::vector<Entry> entries(n);
  for (size_t i = 0; i < n; ++i) entries[i] = {key_of<uint64_t>(x[i]), weight[i]};
  sort_keys<Entry, 8, 6>(&entries);
  for (auto i = entries.begin(); i != entries.end();) {  // runs of one value
    auto end = i + 1;
    while (end != entries.end() && end->key == i->key) ++end;
    std::sort(i, end, [](const Entry& a, const Entry& b) { return a.weight < b.weight; });
    i = end;
  }
  for (size_t i = 0; i < n; ++i) {
    x[i] = value_of<double>(entries[i].key);
    weight[i] = entries[i].weight;
  }
}

}  // namespace torchext::levels
