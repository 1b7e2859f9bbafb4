// Values about a centre and their squares in double-double: the terms of all prefix sums.
#pragma once

#include <cstddef>

namespace torchext::levels {

constexpr size_t kCentredBlock = 256;

/// t = x - centre and t^2, high and low parts apart.
struct Centred {
  double t[2][kCentredBlock], square[2][kCentredBlock];
};

/// x [n], n <= kCentredBlock. All variants give the bits of two_sum and of DD * DD.
using CentredFn = void(const double* x, size_t n, double centre, Centred* out) noexcept;

CentredFn centred_ref, centred_avx2, centred_avx512;

CentredFn* centred() noexcept;

}  // namespace torchext::levels
