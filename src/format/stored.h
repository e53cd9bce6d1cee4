// The stored tensors of a linear, for formats that read them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/specs.h"
#include "recipe/recipe.h"
#include "tensor/matrix.h"

namespace gptq {

// The groups of a linear's inputs.
int64_t groups_of(const LinearSpec& linear, const ResolvedRecipe& recipe);

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

// The whole number under `key`, from `least` to `most`. Throws InputError for another value, and the library's
// out_of_range without the key.
int64_t whole_number(const Json& config, const char* key, int64_t least, int64_t most, const std::string& where);

// The largest group_size that a config may have.
constexpr int64_t kMostGroupSize = int64_t{1} << 24;

// The values of an F16, BF16 or F32 tensor of scales. Throws InputError if some are NaN or infinite.
std::vector<float> load_scales(const Checkpoint& checkpoint, const StoredTensor& tensor);

}  // namespace gptq
