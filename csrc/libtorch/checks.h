// Errors, in torch's words, for settings that cannot be.
#pragma once

#include <torchext/optim/base.h>

namespace torchext::optim {

void check_run(const Method& method, const Run& run);
void check_settings(const Settings& settings, const Run& run);
void check_parameter(const Method& method, const at::Tensor& param);

}  // namespace torchext::optim
