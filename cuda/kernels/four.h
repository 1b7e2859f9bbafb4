// Four consecutive elements between memory and the arithmetic type: the part of a thread.
//
// Loading and converting are apart, so that a thread has all its loads in flight before it waits
// for the first. Formats are values, not template parameters: the branches are the same for a whole
// warp, and cost less than memory does.
#pragma once

#include "kernels/optim/lattice_rule.h"
#include "vector_io.h"

namespace torchext::cuda {

/// The bytes of four elements, in order, as little-endian words.
struct Four {
  uint32_t w[8];
};

/// Bytes of four elements.
TX_DEVICE int bytes_of(Number number) {
  return number == Number::f32 ? 16 : number == Number::f64 ? 32 : 8;
}
TX_DEVICE int bytes_of(CodeStore store) { return 2 << static_cast<int>(store); }
static_assert(static_cast<int>(CodeStore::int4) == 0 && static_cast<int>(CodeStore::int8) == 1 &&
              static_cast<int>(CodeStore::int16) == 2 && static_cast<int>(CodeStore::f32) == 3 &&
              static_cast<int>(CodeStore::f64) == 4);

template <class T>
TX_DEVICE void copy_word(const unsigned char* from, uint32_t* to, int shift) {
  *to |= static_cast<uint32_t>(*reinterpret_cast<const T*>(from)) << shift;
}
template <class T>
TX_DEVICE void put_word(uint32_t from, unsigned char* to, int shift) {
  *reinterpret_cast<T*>(to) = static_cast<T>(from >> shift);
}

/// Loads elements i .. i+3, i a multiple of 4, of which `count` exist; the others are zeros.
/// aligned: the array begins at a multiple of 16 bytes.
TX_DEVICE Four load_four(const void* array, int bytes, int64_t i, int count, bool aligned) {
  const unsigned char* from = static_cast<const unsigned char*>(array) + i / 4 * bytes;
  Four f = {};
  if (aligned && count == 4) {
    switch (bytes) {
      case 2: copy_word<uint16_t>(from, f.w, 0); break;
      case 4: copy_word<uint32_t>(from, f.w, 0); break;
      case 8: {
        const auto v = *reinterpret_cast<const Vector8*>(from);
        f.w[0] = v.w[0];
        f.w[1] = v.w[1];
        break;
      }
      case 16: load<4>(reinterpret_cast<const uint32_t*>(from), f.w); break;
      default: load<8>(reinterpret_cast<const uint32_t*>(from), f.w);
    }
    return f;
  }
  TX_UNROLL
  for (int k = 0; k < 4; ++k) {
    if (k >= count) continue;
    switch (bytes) {
      case 2:
        if (k % 2 == 0) copy_word<uint8_t>(from + k / 2, f.w, 4 * k);
        break;
      case 4: copy_word<uint8_t>(from + k, f.w, 8 * k); break;
      case 8: copy_word<uint16_t>(from + 2 * k, f.w + k / 2, 16 * (k % 2)); break;
      case 16: copy_word<uint32_t>(from + 4 * k, f.w + k, 0); break;
      default:
        copy_word<uint32_t>(from + 8 * k, f.w + 2 * k, 0);
        copy_word<uint32_t>(from + 8 * k + 4, f.w + 2 * k + 1, 0);
    }
  }
  return f;
}

/// The reverse; elements that do not exist are not written.
TX_DEVICE void store_four(const Four& f, void* array, int bytes, int64_t i, int count,
                          bool aligned) {
  unsigned char* to = static_cast<unsigned char*>(array) + i / 4 * bytes;
  if (aligned && count == 4) {
    switch (bytes) {
      case 2: put_word<uint16_t>(f.w[0], to, 0); break;
      case 4: put_word<uint32_t>(f.w[0], to, 0); break;
      case 8: *reinterpret_cast<Vector8*>(to) = Vector8{{f.w[0], f.w[1]}}; break;
      case 16: store<4>(f.w, reinterpret_cast<uint32_t*>(to)); break;
      default: store<8>(f.w, reinterpret_cast<uint32_t*>(to));
    }
    return;
  }
  TX_UNROLL
  for (int k = 0; k < 4; ++k) {
    if (k >= count) continue;
    switch (bytes) {
      case 2:
        if (k % 2 == 0) put_word<uint8_t>(f.w[0], to + k / 2, 4 * k);
        break;
      case 4: put_word<uint8_t>(f.w[0], to + k, 8 * k); break;
      case 8: put_word<uint16_t>(f.w[k / 2], to + 2 * k, 16 * (k % 2)); break;
      case 16: put_word<uint32_t>(f.w[k], to + 4 * k, 0); break;
      default:
        put_word<uint32_t>(f.w[2 * k], to + 8 * k, 0);
        put_word<uint32_t>(f.w[2 * k + 1], to + 8 * k + 4, 0);
    }
  }
}

TX_DEVICE double double_at(const Four& f, int k) {
  const uint64_t bits = f.w[2 * k] | static_cast<uint64_t>(f.w[2 * k + 1]) << 32;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
TX_DEVICE void put_double(double value, Four* f, int k) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  f->w[2 * k] = static_cast<uint32_t>(bits);
  f->w[2 * k + 1] = static_cast<uint32_t>(bits >> 32);
}

/// Four numbers in the arithmetic type.
template <class T>
TX_DEVICE void read_numbers(const Four& f, Number number, T* x) {
  TX_UNROLL
  for (int k = 0; k < 4; ++k) {
    const auto half = static_cast<uint16_t>(f.w[k / 2] >> 16 * (k % 2));
    switch (number) {
      case Number::f32: x[k] = static_cast<T>(float_from_bits(f.w[k])); break;
      case Number::f64: x[k] = static_cast<T>(double_at(f, k)); break;
      case Number::bf16: x[k] = static_cast<T>(from_bfloat16(half)); break;
      default: x[k] = static_cast<T>(from_float16(half));
    }
  }
}

/// Rounds to the type in memory; T is double only where that is double.
template <class T>
TX_DEVICE Four write_numbers(const T* x, Number number) {
  Four f = {};
  TX_UNROLL
  for (int k = 0; k < 4; ++k) {
    if (sizeof(T) == 8) {
      put_double(x[k], &f, k);
    } else if (number == Number::f32) {
      f.w[k] = float_bits(static_cast<float>(x[k]));
    } else {
      const auto value = static_cast<float>(x[k]);
      const uint16_t half = number == Number::bf16 ? to_bfloat16(value) : to_float16(value);
      f.w[k / 2] |= static_cast<uint32_t>(half) << 16 * (k % 2);
    }
  }
  return f;
}

template <class T>
TX_DEVICE void read_codes(const Four& f, CodeStore store, T* q) {
  TX_UNROLL
  for (int k = 0; k < 4; ++k) {
    switch (store) {
      case CodeStore::int4:
        q[k] = static_cast<T>(static_cast<int32_t>(f.w[0] << (28 - 4 * k)) >> 28);
        break;
      case CodeStore::int8: q[k] = static_cast<T>(static_cast<int8_t>(f.w[0] >> 8 * k)); break;
      case CodeStore::int16:
        q[k] = static_cast<T>(static_cast<int16_t>(f.w[k / 2] >> 16 * (k % 2)));
        break;
      case CodeStore::f32: q[k] = static_cast<T>(float_from_bits(f.w[k])); break;
      default: q[k] = static_cast<T>(double_at(f, k));
    }
  }
}

template <class T>
TX_DEVICE Four write_codes(const T* q, CodeStore store) {
  Four f = {};
  TX_UNROLL
  for (int k = 0; k < 4; ++k) {
    const auto code =
        store <= CodeStore::int16 ? static_cast<uint32_t>(static_cast<int32_t>(q[k])) : 0u;
    switch (store) {
      case CodeStore::int4: f.w[0] |= (code & 0xFu) << 4 * k; break;
      case CodeStore::int8: f.w[0] |= (code & 0xFFu) << 8 * k; break;
      case CodeStore::int16: f.w[k / 2] |= (code & 0xFFFFu) << 16 * (k % 2); break;
      case CodeStore::f32: f.w[k] = float_bits(static_cast<float>(q[k])); break;
      default: put_double(static_cast<double>(q[k]), &f, k);
    }
  }
  return f;
}

/// Where the lanes of a warp are in one tensor: element i of `count` <= 4 that exist.
struct Place {
  int64_t i;
  int count;
  bool aligned;

  TX_DEVICE Four load(const void* array, int bytes) const {
    return load_four(array, bytes, i, count, aligned);
  }
  TX_DEVICE void store(const Four& f, void* array, int bytes) const {
    store_four(f, array, bytes, i, count, aligned);
  }
};

/// Whether every array of a tensor begins at a multiple of 16 bytes.
TX_DEVICE bool is_aligned(const LatticeTensor& a) {
  const void* arrays[] = {a.param, a.q, a.center, a.grad, a.grad_center, a.full_grad, a.momentum};
  uintptr_t all = 0;
  TX_UNROLL
  for (int k = 0; k < 7; ++k) all |= reinterpret_cast<uintptr_t>(arrays[k]);
  return all % 16 == 0;
}

/// Runs body(place) over a chunk of a tensor, four elements a lane at a time; all lanes take part.
template <class Body>
TX_DEVICE void over_fours(const LatticeTensor& a, int64_t chunk, const Thread& t,
                          const Body& body) {
  const bool aligned = is_aligned(a);
  const int64_t begin = chunk * kLatticeChunk, left = a.n - begin;
  const int size = left < kLatticeChunk ? static_cast<int>(left) : static_cast<int>(kLatticeChunk);
  for (int row = 0; row < size; row += 128) {
    const int at = row + 4 * t.lane(), rest = size - at;
    body(Place{begin + at, rest < 0 ? 0 : rest < 4 ? rest : 4, aligned});
  }
}

}  // namespace torchext::cuda
