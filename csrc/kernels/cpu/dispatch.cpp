#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace torchext::cpu {

Isa best_isa() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c"))) {
    return Isa::ref;
  }
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return wide ? Isa::avx512 : Isa::avx2;
#else
  return Isa::ref;
#endif
}

bool has_vnni_vbmi() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
#else
  return false;
#endif
}

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "ref";
  }
}

bool parse_isa(const char* name, Isa* isa) noexcept {
  for (const Isa candidate : {Isa::ref, Isa::avx2, Isa::avx512}) {
    if (name != nullptr && std::strcmp(name, isa_name(candidate)) == 0) {
      *isa = candidate;
      return true;
    }
  }
  return false;
}

Isa isa_for(const char* wanted, Isa best) noexcept {
  Isa isa = best;
  return parse_isa(wanted, &isa) && isa < best ? isa : best;
}

namespace {

std::atomic<Isa>& current() noexcept {
  static std::atomic<Isa> isa{isa_for(std::getenv("TORCHEXT_ISA"), best_isa())};
  return isa;
}

}  // namespace

Isa active_isa() noexcept { return current().load(std::memory_order_relaxed); }

bool force_isa(Isa isa) noexcept {
  if (isa > best_isa()) return false;
  current().store(isa, std::memory_order_relaxed);
  return true;
}

}  // namespace torchext::cpu
