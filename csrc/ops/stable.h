// The one place where op glue meets torch: aliases, checks with the library's error text, keys.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/philox.h"

namespace torchext::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// Errors reach the user as "torchext::<op>: <argument> must be <expected>, got <actual>".
template <class... Parts>
[[noreturn]] void fail(const char* op, const Parts&... parts) {
  std::ostringstream text;
  text << "torchext::" << op << ": ";
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// STD_TORCH_CHECK would prepend function, file and line; users need none of them.
#define TX_CHECK(condition, op, ...)                          \
  do {                                                        \
    if (!(condition)) ::torchext::ops::fail(op, __VA_ARGS__); \
  } while (false)

inline const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Half: return "float16";
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Bool: return "bool";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::UInt64: return "uint64";
    default: return "another dtype";
  }
}

inline std::string shape_text(const Tensor& t) {
  std::ostringstream text;
  text << "(";
  for (int64_t d = 0; d < t.dim(); ++d)
    text << (d ? ", " : "") << t.sizes()[static_cast<size_t>(d)];
  text << ")";
  return text.str();
}

inline void check_dtype(const char* op, const char* name, const Tensor& t, ScalarType want) {
  TX_CHECK(t.scalar_type() == want, op, name, " must be ", dtype_name(want), ", got ",
           dtype_name(t.scalar_type()));
}

inline void check_shape(const char* op, const char* name, const Tensor& t,
                        std::initializer_list<int64_t> want) {
  bool same = t.dim() == static_cast<int64_t>(want.size());
  int64_t d = 0;
  for (const int64_t size : want) same = same && t.sizes()[static_cast<size_t>(d++)] == size;
  if (same) return;
  std::ostringstream expected;
  expected << "(";
  d = 0;
  for (const int64_t size : want) expected << (d++ ? ", " : "") << size;
  expected << ")";
  fail(op, name, " must have shape ", expected.str(), ", got ", shape_text(t));
}

inline void check_contiguous(const char* op, const char* name, const Tensor& t) {
  TX_CHECK(t.is_contiguous(), op, name, " must be contiguous, got a strided tensor");
}

inline int64_t check_range(const char* op, const char* name, int64_t value, int64_t lo,
                           int64_t hi) {
  TX_CHECK(value >= lo && value <= hi, op, name, " must be in [", lo, ", ", hi, "], got ", value);
  return value;
}

inline uint32_t to_stream(const char* op, int64_t stream) {
  return static_cast<uint32_t>(check_range(op, "stream", stream, 0, 0xFFFFFFFFll));
}

/// A key tensor is (2,) int64 or uint64, contiguous: the bits of (seed, offset).
inline void check_key(const char* op, const Tensor& key) {
  TX_CHECK(key.scalar_type() == ScalarType::Long || key.scalar_type() == ScalarType::UInt64, op,
           "key must be int64 or uint64, got ", dtype_name(key.scalar_type()));
  check_shape(op, "key", key, {2});
  check_contiguous(op, "key", key);
}

/// The key in a CPU tensor; CUDA kernels read theirs on the device.
inline Key read_key(const char* op, const Tensor& key) {
  check_key(op, key);
  const auto* words = static_cast<const uint64_t*>(key.const_data_ptr());
  return Key{words[0], words[1]};
}

/// Runs body(begin, end) over [0, count) on torch's threads; a body must not throw.
template <class Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, body);
}

}  // namespace torchext::ops
