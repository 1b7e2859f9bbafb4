// Steps of optimizers whose iterates live on a lattice: what a kernel gets.
//
// A tensor of weights is w = c + delta*q: a centre c in full precision (none: 0), a spacing delta >
// 0 and integers q with -2^(bits-1) <= q < 2^(bits-1). One kernel serves every method: HALP and
// bit-centred SGD (a centre), LP-SGD and LP-SVRG (none), SVRG (delta = 1 and real q).
// docs/optimizers.md has the formulas.
//
// Arithmetic is float, or double where the weights are double; each line is one IEEE operation, fma
// where written, so that all instruction sets give the same bits.
#pragma once

#include <cstdint>

#include "../philox.h"

namespace torchext {

/// How numbers lie in memory.
enum class Number : int { f32, f64, bf16, f16 };

/// How q lies in memory: two's complement, int4 two to a byte with element 2k in the low half, or
/// as float or double.
enum class CodeStore : int { int4, int8, int16, f32, f64 };

/// Bytes of n codes.
TX_HD int64_t code_bytes(int64_t n, CodeStore store) {
  switch (store) {
    case CodeStore::int4: return n / 2 + n % 2;
    case CodeStore::int8: return n;
    case CodeStore::int16: return 2 * n;
    case CodeStore::f32: return 4 * n;
    default: return 8 * n;
  }
}

/// One tensor of weights, n elements, all arrays contiguous in row-major order.
struct LatticeTensor {
  int64_t n;
  Number number;       // of param, grad and grad_center; f64: all arithmetic is double
  Number full_number;  // of full_grad
  CodeStore store;
  void* param;
  void* q;
  void* center;             // float or double; null: 0
  const void* grad;         // gradient at w
  const void* grad_center;  // gradient of the same examples at the centre; null: 0
  const void* full_grad;    // full gradient at the centre; null: 0
  void* momentum;           // float or double; null: none
  double delta;             // spacing; exact in float where that is the arithmetic
  uint32_t stream;          // number of the tensor in the random stream
};

/// What all tensors of a step share.
struct LatticeRule {
  double lr, weight_decay, coef, momentum, dampening;
  int bits;
  bool lattice;  // false: q is real, nothing is rounded (SVRG)
  bool nearest, maximize, nesterov, decoupled, first_momentum;
  Key key;
};

constexpr int64_t kLatticeChunk = 1024;  // elements summed together: a chunk of tree_sum
constexpr int kLatticeSums = 6;

namespace cpu {

/// Work on elements [begin, end) of one tensor; begin is a multiple of kLatticeChunk, end too
/// unless it is n.
struct LatticeKernels {
  /// One step: the direction v from the gradients, then q and the weights. `sums`, if not null,
  /// gets for chunk c at kLatticeSums*c: elements that saturated, elements with the same q as
  /// before, sum (r - t)^2 and sum t^2 (r rounded from t, in units of delta), max |q|, and the
  /// elements that were skipped because their t is not finite.
  void (*step)(const LatticeRule&, const LatticeTensor&, int64_t begin, int64_t end,
               double* sums) noexcept;
  /// param = c + delta*q.
  void (*materialize)(const LatticeTensor&, int64_t begin, int64_t end) noexcept;
  /// c = c + delta*q, q = 0, param = c.
  void (*commit)(const LatticeTensor&, int64_t begin, int64_t end) noexcept;
  /// q = param/delta rounded to the nearest integer, ties to even, saturating; param = delta*q.
  /// True: met NaN, whose q and weight are 0.
  bool (*encode)(const LatticeTensor&, int bits, int64_t begin, int64_t end) noexcept;
};

extern const LatticeKernels lattice_ref, lattice_avx2, lattice_avx512;

/// The kernels of the instruction set in use. All give the same bits.
const LatticeKernels& lattice_kernels() noexcept;

/// tree_sum over chunks [begin, end) of (x + weight_decay*center)^2 in double, one result a chunk;
/// center may be null. x is full_grad, the sum before squaring is one fma in the arithmetic of the
/// tensor.
void square_sums(const LatticeTensor&, double weight_decay, int64_t begin, int64_t end,
                 double* chunk_sums) noexcept;

}  // namespace cpu
}  // namespace torchext
