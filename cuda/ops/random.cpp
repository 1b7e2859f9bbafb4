// Keys on CUDA: deriving them, and the raw words for tests.
#include "device_format.h"
#include "kernels/derive_keys.h"

namespace torchext::ops {
namespace {

/// `n` children of a key, [n, 2] or, for one, [2].
Tensor derive(const Tensor& key, const Tensor* data, uint32_t first, int64_t n,
              std::vector<int64_t> shape, const char* op) {
  const Device device(key, "key");
  const uint64_t* parent = device_key(op, device, key);
  if (data) device.check(op, "data", *data);
  Tensor out = torch::stable::new_empty(key, shape, ScalarType::Long);
  const cuda::DeriveKeysParams p{parent, data ? data->const_data_ptr<int64_t>() : nullptr, first,
                                 out.mutable_data_ptr<int64_t>(), n};
  check_launch(op, cuda::launch_derive_keys(p, device.stream()));
  return out;
}

Tensor fold_in_int(const Tensor& key, int64_t data) {
  constexpr const char* op = "fold_in";
  check_range(op, "data", data, 0, 0xFFFFFFFFll);
  return derive(key, nullptr, static_cast<uint32_t>(data), 1, {2}, op);
}

Tensor fold_in_tensor(const Tensor& key, const Tensor& data) {
  constexpr const char* op = "fold_in";
  check_dtype(op, "data", data, ScalarType::Long);
  TX_CHECK(data.numel() == 1, op, "data must have one element, got ", data.numel());
  return derive(key, &data, 0, 1, {2}, op);
}

Tensor split(const Tensor& key, int64_t n) {
  constexpr const char* op = "split";
  check_range(op, "n", n, 0, 0xFFFFFFFFll);
  return derive(key, nullptr, 0, n, {n, 2}, op);
}

Tensor philox(const Tensor& key, int64_t blocks, int64_t stream, int64_t draw) {
  constexpr const char* op = "_philox";
  check_range(op, "blocks", blocks, 0, int64_t{1} << 40);
  check_range(op, "draw", draw, 0, 0xFFFFFFFFll);
  const Device device(key, "key");
  const uint64_t* words = device_key(op, device, key);
  Tensor out = torch::stable::new_empty(key, {4 * blocks}, ScalarType::Long);
  const cuda::RandomWordsParams p{words, out.mutable_data_ptr<int64_t>(), blocks,
                                  to_stream(op, stream), static_cast<uint32_t>(draw)};
  check_launch(op, cuda::launch_random_words(p, device.stream()));
  return out;
}

}  // namespace
}  // namespace torchext::ops

TX_CUDA_OPS(m) {
  m.impl("fold_in", TORCH_BOX(&torchext::ops::fold_in_int));
  m.impl("fold_in.Tensor", TORCH_BOX(&torchext::ops::fold_in_tensor));
  m.impl("split", TORCH_BOX(&torchext::ops::split));
  m.impl("_philox", TORCH_BOX(&torchext::ops::philox));
}
