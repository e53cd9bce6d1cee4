// How one checkpoint format stores quantized linears: all that a format has to bring. Each has a file of its own
// (gptq_format.cpp, compressed_tensors.cpp); format.h is what the rest of the program sees.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/format.h"
#include "model/specs.h"

namespace gptq {

// A quantized linear in host memory.
struct HostLinear {
  int64_t rows = 0, groups = 0;
  int bits = 0;
  std::vector<uint8_t> codes, zeros;  // [rows, in], [rows, groups]
  std::vector<float> scales;          // [rows, groups]
  std::vector<int32_t> g_idx;         // [in]

  Matrix dequantized(Backend& backend, DType dtype) const;
};

class LinearFormat {
 public:
  virtual ~LinearFormat() = default;

  // Throws InputError, naming the flag, for a recipe that the format cannot hold.
  virtual void check(const Recipe& recipe) const = 0;

  // Writing: the tensors of a linear, their values in the same order, and the bytes that making them takes.
  virtual std::vector<TensorSpec> tensors(const LinearSpec& linear, const Recipe& recipe) const = 0;
  virtual PackedLinear pack(const FetchedLinear& linear, const Recipe& recipe) const = 0;
  virtual int64_t packing_bytes(const LinearSpec& linear, const Recipe& recipe) const = 0;
  virtual Json config(const Recipe& recipe, const std::vector<QuantizedLinear>& linears,
                      const std::vector<std::string>& unquantized) const = 0;
  virtual bool has_config_file() const = 0;  // the config goes to quantize_config.json too

  // Reading. The names of a linear's tensors after its own: the one that holds codes, the scales, all others.
  struct Parts {
    std::string_view codes, scales;
    std::vector<std::string_view> others;
  };
  virtual const Parts& parts() const = 0;
  virtual QuantizationConfig parse(const Json& config, const std::string& where) const = 0;
  virtual StoredSizes sizes(const StoredTensor& codes, const StoredTensor& scales, const LinearSpec& linear) const = 0;
  // Throws InputError for tensors whose shapes do not fit together.
  virtual HostLinear read(const Checkpoint& checkpoint, const LinearSpec& linear,
                          const QuantizationConfig& config) const = 0;
};

const LinearFormat& gptq_format();     // zeros stored less one
const LinearFormat& gptq_v2_format();  // zeros stored as they are
const LinearFormat& compressed_tensors_format();

const LinearFormat& linear_format(CheckpointFormat format);

// What formats share.

int64_t groups_of(const LinearSpec& linear, const Recipe& recipe);

// What a config tells of how its codes were found.
Json recipe_record(const Recipe& recipe);

template <typename T>
std::span<const T> elements(const Matrix& host) {
  return {host.row<T>(0), static_cast<size_t>(host.view().size())};
}

template <typename T>
std::vector<T> elements(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  std::vector<T> values(tensor.bytes / sizeof(T));
  checkpoint.read(tensor, 0, tensor.bytes, values.data());
  return values;
}

// A tensor of `shape` and one of `dtypes`; throws InputError for another.
const StoredTensor& checked(const Checkpoint& checkpoint, const std::string& name,
                            const std::vector<std::string>& dtypes, const std::vector<int64_t>& shape);

// Of an F16, BF16 or F32 tensor.
std::vector<float> to_floats(const Checkpoint& checkpoint, const StoredTensor& tensor);

}  // namespace gptq
