// Ops without tensors: which instruction set runs.
#include "kernels/cpu/dispatch.h"
#include "stable.h"

namespace torchext::ops {
namespace {

std::string cpu_isa() { return cpu::isa_name(cpu::active_isa()); }

bool force_isa(std::string name) {
  cpu::Isa isa;
  TX_CHECK(cpu::parse_isa(name.c_str(), &isa), "_force_isa",
           "isa must be ref, avx2 or avx512, got ", name);
  return cpu::force_isa(isa);
}

}  // namespace
}  // namespace torchext::ops

STABLE_TORCH_LIBRARY_IMPL(torchext, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", TORCH_BOX(&torchext::ops::cpu_isa));
  m.impl("_force_isa", TORCH_BOX(&torchext::ops::force_isa));
}
