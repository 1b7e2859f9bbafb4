#include "kernels/cpu/dispatch.h"

#include <gtest/gtest.h>

namespace torchext::cpu {
namespace {

TEST(Dispatch, TheVariableLowersAndNeverRaises) {
  for (const Isa best : {Isa::ref, Isa::avx2, Isa::avx512}) {
    for (const Isa wanted : {Isa::ref, Isa::avx2, Isa::avx512})
      EXPECT_EQ(isa_for(isa_name(wanted), best), wanted < best ? wanted : best);
    for (const char* other : {"", "nonsense", "AVX2", "avx2 ", "avx512vnni"})
      EXPECT_EQ(isa_for(other, best), best) << other;
    EXPECT_EQ(isa_for(nullptr, best), best);
  }
}

TEST(Dispatch, ForcingWhatTheProcessorLacksChangesNothing) {
  const Isa before = active_isa();
  for (const Isa isa : {Isa::ref, Isa::avx2, Isa::avx512}) {
    const bool present = isa <= best_isa();
    const Isa last = active_isa();
    EXPECT_EQ(force_isa(isa), present);
    EXPECT_EQ(active_isa(), present ? isa : last);
  }
  EXPECT_TRUE(force_isa(before));
}

}  // namespace
}  // namespace torchext::cpu
