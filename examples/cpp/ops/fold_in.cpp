// A C++ program that calls torchext's ops through libtorch, without Python. Loading the library
// registers them; nothing refers to it otherwise, hence --no-as-needed. TORCH is the folder of
// libtorch, or of Python's torch package.
//   cmake -S . -B build -DTORCHEXT_OPS_LIB=ON && cmake --build build
//   cmake --install build --component ops --prefix PREFIX
//   g++ -std=c++20 -I TORCH/include -I TORCH/include/torch/csrc/api/include
//     examples/cpp/ops/fold_in.cpp -o fold_in -L TORCH/lib -ltorch -ltorch_cpu -lc10
//     -Wl,--no-as-needed PREFIX/lib/libtorchext_ops.so
//   LD_LIBRARY_PATH=PREFIX/lib:TORCH/lib ./fold_in
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cinttypes>
#include <cstdio>

int main() {
  const auto fold_in = c10::Dispatcher::singleton()
                           .findSchemaOrThrow("torchext::fold_in", "")
                           .typed<at::Tensor(const at::Tensor&, int64_t)>();
  const at::Tensor key = at::tensor({int64_t{0x0123456789ABCDEF}, int64_t{0}});
  for (int64_t data = 0; data < 3; ++data) {
    const auto seed = static_cast<uint64_t>(fold_in.call(key, data)[0].item<int64_t>());
    std::printf("%016" PRIx64 "\n", seed);
  }
}
