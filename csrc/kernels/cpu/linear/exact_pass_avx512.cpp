// Exact pass, avx512.
#include "../../linear/exact_pass_impl.h"

namespace torchext::cpu {

void exact_pass_avx512(const ExactPass& p, int64_t begin, int64_t end, double* scratch,
                       double* gradient, double* loss) noexcept {
  exact_pass_impl(p, begin, end, scratch, gradient, loss);
}

}  // namespace torchext::cpu
