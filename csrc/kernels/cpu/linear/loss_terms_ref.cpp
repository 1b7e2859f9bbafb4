// Loss terms of a line search, ref.
#include "../../linear/loss_terms_impl.h"

namespace torchext::cpu {

void loss_terms_ref(const LossTerms& a, int64_t begin, int64_t end, float* scratch,
                    double* sums) noexcept {
  loss_terms_impl(a, begin, end, scratch, sums);
}

}  // namespace torchext::cpu
