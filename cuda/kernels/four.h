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

/// Runs body(0) .. body(3), unrolled: registers have no index.
template <class Body>
TX_DEVICE void each_of_four(const Body& body) {
  TX_UNROLL
  for (int k = 0; k < 4; ++k) body(k);
}

template <class T>
TX_DEVICE void copy_word(const unsigned char* from, uint32_t* to, int shift) {
  *to |= static_cast<uint32_t>(*reinterpret_cast<const T*>(from)) << shift;
}
template <class T>
TX_DEVICE void put_word(uint32_t from, unsigned char* to, int shift) {
  *reinterpret_cast<T*>(to) = static_cast<T>(from >> shift);
}

/// Runs body(word, byte, shift) for those of four elements of type T that exist: one lies at `byte`
/// in memory, and from bit `shift` of a word on.
template <class T, class Body>
TX_DEVICE void each_part(int count, const Body& body) {
  each_of_four([&](int k) {
    constexpr int kBytes = sizeof(T);
    if (k < count) body(kBytes * k / 4, kBytes * k, 8 * (kBytes * k % 4));
  });
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
  switch (bytes) {
    case 2:
      if (count > 0) copy_word<uint8_t>(from, f.w, 0);
      if (count > 2) copy_word<uint8_t>(from + 1, f.w, 8);
      break;
    case 4:
      each_part<uint8_t>(count, [&](int word, int byte, int shift) {
        copy_word<uint8_t>(from + byte, f.w + word, shift);
      });
      break;
    case 8:
      each_part<uint16_t>(count, [&](int word, int byte, int shift) {
        copy_word<uint16_t>(from + byte, f.w + word, shift);
      });
      break;
    case 16:
      each_part<uint32_t>(count, [&](int word, int byte, int shift) {
        copy_word<uint32_t>(from + byte, f.w + word, shift);
      });
      break;
    default:
      each_part<uint64_t>(count, [&](int word, int byte, int) {
        copy_word<uint32_t>(from + byte, f.w + word, 0);
        copy_word<uint32_t>(from + byte + 4, f.w + word + 1, 0);
      });
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
  switch (bytes) {
    case 2:
      if (count > 0) put_word<uint8_t>(f.w[0], to, 0);
      if (count > 2) put_word<uint8_t>(f.w[0], to + 1, 8);
      break;
    case 4:
      each_part<uint8_t>(count, [&](int word, int byte, int shift) {
        put_word<uint8_t>(f.w[word], to + byte, shift);
      });
      break;
    case 8:
      each_part<uint16_t>(count, [&](int word, int byte, int shift) {
        put_word<uint16_t>(f.w[word], to + byte, shift);
      });
      break;
    case 16:
      each_part<uint32_t>(count, [&](int word, int byte, int shift) {
        put_word<uint32_t>(f.w[word], to + byte, shift);
      });
      break;
    default:
      each_part<uint64_t>(count, [&](int word, int byte, int) {
        put_word<uint32_t>(f.w[word], to + byte, 0);
        put_word<uint32_t>(f.w[word + 1], to + byte + 4, 0);
      });
  }
}

TX_DEVICE double double_at(const Four& f, int k) {
  return double_from_bits(f.w[2 * k] | static_cast<uint64_t>(f.w[2 * k + 1]) << 32);
}
TX_DEVICE void put_double(double value, Four* f, int k) {
  const uint64_t bits = double_bits(value);
  f->w[2 * k] = static_cast<uint32_t>(bits);
  f->w[2 * k + 1] = static_cast<uint32_t>(bits >> 32);
}

TX_DEVICE uint16_t half_at(const Four& f, int k) {
  return static_cast<uint16_t>(f.w[k / 2] >> 16 * (k % 2));
}

/// Four numbers in the arithmetic type.
template <class T>
TX_DEVICE void read_numbers(const Four& f, Number number, T* x) {
  switch (number) {
    case Number::f32:
      each_of_four([&](int k) { x[k] = static_cast<T>(float_from_bits(f.w[k])); });
      break;
    case Number::f64: each_of_four([&](int k) { x[k] = static_cast<T>(double_at(f, k)); }); break;
    case Number::bf16:
      each_of_four([&](int k) { x[k] = static_cast<T>(from_bfloat16(half_at(f, k))); });
      break;
    default: each_of_four([&](int k) { x[k] = static_cast<T>(from_float16(half_at(f, k))); });
  }
}

/// Rounds to the type in memory; T is double only where that is double.
template <class T>
TX_DEVICE Four write_numbers(const T* x, Number number) {
  Four f = {};
  if (sizeof(T) == 8) {
    each_of_four([&](int k) { put_double(x[k], &f, k); });
  } else if (number == Number::f32) {
    each_of_four([&](int k) { f.w[k] = float_bits(static_cast<float>(x[k])); });
  } else if (number == Number::bf16) {
    each_of_four([&](int k) {
      f.w[k / 2] |= uint32_t{to_bfloat16(static_cast<float>(x[k]))} << 16 * (k % 2);
    });
  } else {
    each_of_four([&](int k) {
      f.w[k / 2] |= uint32_t{to_float16(static_cast<float>(x[k]))} << 16 * (k % 2);
    });
  }
  return f;
}

template <class T>
TX_DEVICE void read_codes(const Four& f, CodeStore store, T* q) {
  switch (store) {
    case CodeStore::int4:
      each_of_four([&](int k) {
        q[k] = static_cast<T>(static_cast<int32_t>(f.w[0] << (28 - 4 * k)) >> 28);
      });
      break;
    case CodeStore::int8:
      each_of_four([&](int k) { q[k] = static_cast<T>(static_cast<int8_t>(f.w[0] >> 8 * k)); });
      break;
    case CodeStore::int16:
      each_of_four([&](int k) { q[k] = static_cast<T>(static_cast<int16_t>(half_at(f, k))); });
      break;
    case CodeStore::f32:
      each_of_four([&](int k) { q[k] = static_cast<T>(float_from_bits(f.w[k])); });
      break;
    default: each_of_four([&](int k) { q[k] = static_cast<T>(double_at(f, k)); });
  }
}

template <class T>
TX_DEVICE Four write_codes(const T* q, CodeStore store) {
  Four f = {};
  const auto code = [&](int k) { return static_cast<uint32_t>(static_cast<int32_t>(q[k])); };
  switch (store) {
    case CodeStore::int4: each_of_four([&](int k) { f.w[0] |= (code(k) & 0xFu) << 4 * k; }); break;
    case CodeStore::int8: each_of_four([&](int k) { f.w[0] |= (code(k) & 0xFFu) << 8 * k; }); break;
    case CodeStore::int16:
      each_of_four([&](int k) { f.w[k / 2] |= (code(k) & 0xFFFFu) << 16 * (k % 2); });
      break;
    case CodeStore::f32:
      each_of_four([&](int k) { f.w[k] = float_bits(static_cast<float>(q[k])); });
      break;
    default: each_of_four([&](int k) { put_double(static_cast<double>(q[k]), &f, k); });
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
