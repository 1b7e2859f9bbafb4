// The idx format of MNIST.
#pragma once

#include <torch/types.h>

#include <string>

/// An idx file of unsigned bytes as a uint8 tensor. Throws std::runtime_error with what to do.
at::Tensor read_idx(const std::string& path);
