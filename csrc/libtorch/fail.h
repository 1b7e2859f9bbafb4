// Errors: one sentence, without file and line.
#pragma once

#include <c10/util/StringUtil.h>

#include <stdexcept>

namespace torchext::optim {

/// What the caller gave is not possible.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw std::invalid_argument(c10::str(parts...));
}

/// What is there does not allow the call.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw std::runtime_error(c10::str(parts...));
}

}  // namespace torchext::optim
