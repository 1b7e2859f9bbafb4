// Arguments of the quantization ops as their kernels take them. Nothing here reads a value.
#pragma once

#include "device.h"
#include "kernels/formats.h"
#include "ops/quantize_format.h"

namespace torchext::ops {

inline cuda::FloatType float_type(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Double: return cuda::FloatType::f64;
    case ScalarType::BFloat16: return cuda::FloatType::bf16;
    case ScalarType::Half: return cuda::FloatType::f16;
    default: return cuda::FloatType::f32;
  }
}

/// Scales and tables must be on the device; the tensors in `f` must outlive the launch.
inline cuda::DeviceFormat device_format(const char* op, const Device& device,
                                        const FormatArguments& f) {
  cuda::DeviceFormat format;
  format.scheme = f.scheme;
  format.bits = f.bits;
  format.channels = cuda::ChannelMap(f.channels.count, f.channels.inner);
  if (f.scale) {
    device.check(op, "scale", *f.scale);
    format.scale = f.scale->const_data_ptr<float>();
  }
  if (f.levels) {
    device.check(op, "levels", *f.levels);
    format.levels = f.levels->const_data_ptr<float>();
    format.level_count = f.level_count;
    format.table_stride = f.shared_table ? 0 : f.level_count;
  }
  return format;
}

/// The key in device memory: seed, offset.
inline const uint64_t* device_key(const char* op, const Device& device, const Tensor& key) {
  check_key(op, key);
  device.check(op, "key", key);
  return static_cast<const uint64_t*>(key.const_data_ptr());
}

}  // namespace torchext::ops
