// The codes of a store, as the ops over them receive them.
#pragma once

#include <string>

#include "kernels/linear/epoch.h"
#include "stable.h"

namespace torchext::ops {

/// Checks the tensors of a store and fills in the data part of an epoch from them.
void read_codes(const char* op, cpu::Epoch& p, const Tensor& codes, int64_t rows, int64_t cols,
                int64_t bits, const std::string& layout, const Tensor& grid, const Tensor& table);

}  // namespace torchext::ops
