// Stochastic rounding with a key: the same codes as torch.ops.torchext.quantize gives for this key.
#include <torchext/kernels/cpu/dispatch.h>
#include <torchext/kernels/philox.h>
#include <torchext/version.h>

#include <cmath>
#include <cstdio>

int main() {
  const torchext::Key key{0x0123456789ABCDEFull, 0};
  const float scale = 0.25f, inverse = 1.0f / scale;
  std::printf("torchext %s on %s\n", TX_VERSION,
              torchext::cpu::isa_name(torchext::cpu::best_isa()));
  for (int i = 0; i < 20; ++i) {
    const float x = static_cast<float>(37 * i % 64 - 32) / 16.0f;
    const float t = x * inverse, low = std::floor(t);
    const float u = torchext::unit(torchext::draw1(key, static_cast<uint64_t>(i), 3, 0));
    const float code = std::fmin(std::fmax(low + (u < t - low ? 1.0f : 0.0f), -7.0f), 7.0f);
    std::printf("%d ", static_cast<int>(code));
  }
  std::printf("\n");
}
