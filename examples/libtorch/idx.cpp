#include "idx.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <vector>

namespace {

int64_t read_big_endian(std::istream& file) {
  unsigned char b[4] = {};
  file.read(reinterpret_cast<char*>(b), 4);
  return int64_t{b[0]} << 24 | int64_t{b[1]} << 16 | int64_t{b[2]} << 8 | int64_t{b[3]};
}

}  // namespace

at::Tensor read_idx(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    if (std::filesystem::exists(path + ".gz"))
      throw std::runtime_error(path + " is compressed; unpack it: gunzip -k " + path + ".gz");
    throw std::runtime_error(
        path +
        " is missing; download MNIST's four files, for example from "
        "https://ossci-datasets.s3.amazonaws.com/mnist/ , and unpack them with gunzip");
  }
  const int64_t magic = read_big_endian(file);
  const int64_t dims = magic & 0xFF;
  if (!file || magic >> 8 != 8 || dims < 1 || dims > 4)
    throw std::runtime_error(path + " is no idx file of bytes");
  std::vector<int64_t> shape;
  int64_t size = 1;
  for (int64_t d = 0; d < dims; ++d) {
    shape.push_back(read_big_endian(file));
    size *= shape.back();
  }
  const auto header = static_cast<uintmax_t>(4 + 4 * dims);
  if (!file || std::filesystem::file_size(path) != header + static_cast<uintmax_t>(size))
    throw std::runtime_error(path + " has not the length that its header says");
  at::Tensor out = torch::empty(shape, at::kByte);
  file.read(static_cast<char*>(out.data_ptr()), size);
  return out;
}
