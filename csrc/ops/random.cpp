// Keys: deriving them, and the raw words for tests.
#include "stable.h"

namespace torchext::ops {
namespace {

Tensor new_key(const Tensor& like, std::vector<int64_t> shape) {
  return torch::stable::new_empty(like, shape, ScalarType::Long);
}

void write_key(int64_t* out, Key key) {
  out[0] = static_cast<int64_t>(key.seed);
  out[1] = static_cast<int64_t>(key.offset);
}

Tensor fold_in_int(const Tensor& key, int64_t data) {
  constexpr const char* op = "fold_in";
  check_range(op, "data", data, 0, 0xFFFFFFFFll);
  Tensor out = new_key(key, {2});
  write_key(out.mutable_data_ptr<int64_t>(),
            fold_in(read_key(op, key), static_cast<uint32_t>(data)));
  return out;
}

Tensor fold_in_tensor(const Tensor& key, const Tensor& data) {
  constexpr const char* op = "fold_in";
  check_dtype(op, "data", data, ScalarType::Long);
  TX_CHECK(data.numel() == 1, op, "data must have one element, got ", data.numel());
  // Only the low 32 bits count, so that a device counter may run on past 2^32.
  Tensor out = new_key(key, {2});
  write_key(out.mutable_data_ptr<int64_t>(),
            fold_in(read_key(op, key), static_cast<uint32_t>(*data.const_data_ptr<int64_t>())));
  return out;
}

Tensor split(const Tensor& key, int64_t n) {
  constexpr const char* op = "split";
  check_range(op, "n", n, 0, 0xFFFFFFFFll);
  const Key parent = read_key(op, key);
  Tensor out = new_key(key, {n, 2});
  auto* rows = out.mutable_data_ptr<int64_t>();
  for (int64_t j = 0; j < n; ++j)
    write_key(rows + 2 * j, fold_in(parent, static_cast<uint32_t>(j)));
  return out;
}

Tensor philox(const Tensor& key, int64_t blocks, int64_t stream, int64_t draw) {
  constexpr const char* op = "_philox";
  check_range(op, "blocks", blocks, 0, int64_t{1} << 40);
  check_range(op, "draw", draw, 0, 0xFFFFFFFFll);
  const Key k = read_key(op, key);
  const uint32_t s = to_stream(op, stream);
  Tensor out = new_key(key, {4 * blocks});
  auto* words = out.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < blocks; ++b) {
    const Words r = draw4(k, static_cast<uint64_t>(b), s, static_cast<uint32_t>(draw));
    for (int i = 0; i < 4; ++i) words[4 * b + i] = r.w[i];
  }
  return out;
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CPU, m) {
  m.impl("fold_in", TORCH_BOX(&torchext::ops::fold_in_int));
  m.impl("fold_in.Tensor", TORCH_BOX(&torchext::ops::fold_in_tensor));
  m.impl("split", TORCH_BOX(&torchext::ops::split));
  m.impl("_philox", TORCH_BOX(&torchext::ops::philox));
}
