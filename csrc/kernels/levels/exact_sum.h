// Sums whose bits do not depend on the order of their terms, hence neither on vector width nor on
// threads.
//
// A term is cut into slices of 40 bits at fixed places, units 2^(40 k): adding and subtracting
// 1.5 x 2^52 units rounds to the unit, and what is left goes to the slice below. Slices of a kind
// are integers and add up exactly. Three slices from the highest one in use hold a sum of 2^32
// terms to 2^-48 of the largest. (Demmel and Nguyen, "Parallel reproducible summation", 2015.)
#pragma once

#include <cstdint>

#include "../number_bits.h"

namespace torchext::levels {

constexpr int kSliceBits = 40, kLowestSlice = -24, kHighestSlice = 23;
constexpr int64_t kSliceTerms = 1024;  // so many slices of a kind add up exactly in a double

struct ExactSum {
  int top = kLowestSlice + 2;
  __int128 slice[kHighestSlice - kLowestSlice + 1] = {};
};

TX_HD double power_of_two(int exponent) {  // -1022 .. 1023
  return double_from_bits(static_cast<uint64_t>(exponent + 1023) << 52);
}

/// The slice from which a term, not negative and below 2^958, starts: it has nothing above.
TX_HD int top_slice(double term) {
  const int exponent = static_cast<int>(double_bits(term) >> 52) - 1023;
  const int k = (exponent + 1 + 30 * kSliceBits) / kSliceBits - 30;  // floor((exponent + 1) / 40)
  return k < kLowestSlice + 2 ? kLowestSlice + 2 : k;
}

/// (t + c) - c is t rounded to the unit of slice k.
TX_HD double slice_rounder(int k) { return 1.5 * power_of_two(52 + kSliceBits * k); }

/// Takes a sum of at most kSliceTerms slices of kind k.
static inline void add_slices(ExactSum* sum, int k, double slices) {
  sum->slice[k - kLowestSlice] += static_cast<int64_t>(slices * power_of_two(-kSliceBits * k));
}

/// Adds one term, not negative and below 2^958.
static inline void add_term(ExactSum* sum, double term) {
  const int top = top_slice(term);
  if (top > sum->top) sum->top = top;
  for (int k = top; k > top - 3; --k) {
    const double c = slice_rounder(k), part = (term + c) - c;
    add_slices(sum, k, part);
    term -= part;
  }
}

static inline void merge(const ExactSum& from, ExactSum* into) {
  if (from.top > into->top) into->top = from.top;
  for (int k = 0; k <= kHighestSlice - kLowestSlice; ++k) into->slice[k] += from.slice[k];
}

}  // namespace torchext::levels
