#include "format/stored.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_numbers.h"
#include "tensor/nonfinite.h"

namespace gptq {

int64_t groups_of(const LinearSpec& linear, const ResolvedRecipe& recipe) {
  return recipe.group_size == -1 ? 1 : linear.in_features / *recipe.group_size;
}

const StoredTensor& checked(const Checkpoint& checkpoint, const std::string& name,
                            const std::vector<std::string>& dtypes, const std::vector<int64_t>& shape) {
  const StoredTensor& tensor = checkpoint.tensor(name);
  if (tensor.shape != shape) {
    throw tensor_error(checkpoint.folder(), name, name, " has shape ", shape_string(tensor.shape),
                       ", where the linear needs ", shape_string(shape));
  }
  if (std::find(dtypes.begin(), dtypes.end(), tensor.dtype) == dtypes.end())
    throw tensor_error(checkpoint.folder(), name, name, " is ", tensor.dtype, ", where the format has ", dtypes[0]);
  return tensor;
}

int64_t whole_number(const Json& config, const char* key, int64_t least, int64_t most, const std::string& where) {
  const Json& value = config.at(key);
  if (is_whole(value, least, most)) return value.get<int64_t>();
  throw InputError(cat(where, ": quantization_config says ", key, " ", shown(value), ", where a whole number from ",
                       least, " to ", most, " is needed"));
}

std::vector<float> load_scales(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  std::vector<float> values;
  if (tensor.dtype == "F32") {
    values = elements<float>(checkpoint, tensor);
  } else if (tensor.dtype == "BF16") {
    for (const Bf16 value : elements<Bf16>(checkpoint, tensor)) values.push_back(static_cast<float>(value));
  } else {
    for (const Half value : elements<Half>(checkpoint, tensor)) values.push_back(static_cast<float>(value));
  }
  refuse_nonfinite(checkpoint, tensor,
                   count_nonfinite({values.data(), DType::f32, 1, static_cast<int64_t>(values.size())}));
  return values;
}

}  // namespace gptq
