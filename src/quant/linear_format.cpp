#include "quant/linear_format.h"

#include <algorithm>

#include "base/error.h"
#include "quant/recipe.h"

namespace gptq {

Matrix HostLinear::dequantized(Backend& backend, DType dtype) const {
  const auto cols = static_cast<int64_t>(g_idx.size());
  const Matrix device_codes = to_device(backend, DType::u8, rows, cols, codes.data());
  const Matrix device_scales = to_device(backend, DType::f32, rows, groups, scales.data());
  const Matrix device_zeros = to_device(backend, DType::u8, rows, groups, zeros.data());
  Matrix weight(backend, dtype, rows, cols);
  backend.run(ops::Dequantize{
      .codes = device_codes, .groups = g_idx, .grid = {device_scales.view(), device_zeros.view(), bits}, .w = weight});
  return weight;
}

const LinearFormat& linear_format(CheckpointFormat format) {
  switch (format) {
    case CheckpointFormat::gptq_v2:
      return gptq_v2_format();
    case CheckpointFormat::compressed_tensors:
      return compressed_tensors_format();
    case CheckpointFormat::automatic:
    case CheckpointFormat::gptq:
      break;
  }
  return gptq_format();
}

int64_t groups_of(const LinearSpec& linear, const Recipe& recipe) {
  return recipe.group_size == -1 ? 1 : linear.in_features / recipe.group_size;
}

Json recipe_record(const Recipe& recipe) {
  const Recipe decided = resolved(recipe);
  Json record = {{"quantizer", {"gptq.cpp:" + version()}},
                 {"quantization_method", name_of(recipe.method)},
                 {"scale_search", name_of(recipe.scale_search)},
                 {"order", name_of(recipe.order)},
                 {"act_group_aware", recipe.order == Order::group_aware},
                 {"targets", name_of(decided.targets)}};
  // With rules, what is left open is decided for each module by its bits.
  const bool varies = !recipe.dynamic.empty();
  if (!varies || recipe.signed_scales) record["signed_scales"] = *decided.signed_scales;
  if (!varies || !recipe.refine.empty()) record["refine"] = decided.refine;
  if (decided.targets != Targets::weights && (!varies || recipe.alpha)) record["alpha"] = *decided.alpha;
  return record;
}

const StoredTensor& checked(const Checkpoint& checkpoint, const std::string& name,
                            const std::vector<std::string>& dtypes, const std::vector<int64_t>& shape) {
  const StoredTensor& tensor = checkpoint.tensor(name);
  if (tensor.shape != shape) {
    throw InputError(cat(checkpoint.folder().string(), ": ", name, " has shape ", shape_string(tensor.shape),
                         ", where the linear needs ", shape_string(shape)));
  }
  if (std::find(dtypes.begin(), dtypes.end(), tensor.dtype) == dtypes.end()) {
    throw InputError(
        cat(checkpoint.folder().string(), ": ", name, " is ", tensor.dtype, ", where the format has ", dtypes[0]));
  }
  return tensor;
}

std::vector<float> to_floats(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  if (tensor.dtype == "F32") return elements<float>(checkpoint, tensor);
  std::vector<float> values;
  if (tensor.dtype == "BF16") {
    for (const Bf16 value : elements<Bf16>(checkpoint, tensor)) values.push_back(static_cast<float>(value));
  } else {
    for (const Half value : elements<Half>(checkpoint, tensor)) values.push_back(static_cast<float>(value));
  }
  return values;
}

}  // namespace gptq
