#include "model/tensor_checks.h"

#include <optional>

#include "base/error.h"
#include "model/altup.h"
#include "tensor/nonfinite.h"

namespace gptq {

void check_tensors(const Checkpoint& checkpoint, const ModelConfig& config, bool has_reader) {
  const Architecture& row = *config.architecture;
  const auto check_float = [&](const std::string& name, const std::vector<int64_t>& shape, bool may_be_double = false) {
    const StoredTensor& tensor = shape.empty() ? checkpoint.tensor(name) : checkpoint.tensor(name, shape);
    if (may_be_double && tensor.dtype == "F64") return;
    const std::optional<DType> dtype = parse_safetensors_dtype(tensor.dtype);
    if (!dtype || !is_float(*dtype)) {
      throw UnsupportedError(cat(checkpoint.folder().string(), ": tensor '", name, "' is stored as ", tensor.dtype,
                                 "; weights in F32, F16 and BF16 are read"));
    }
  };
  const auto check_part = [&](const PartSpec& spec) {
    for (size_t i = 0; i < spec.weights.size(); ++i)
      check_float(spec.weights[i], stored_shape(checkpoint, spec, i), true);
    if (!spec.bias.empty()) check_float(spec.bias, {bias_size(spec)}, true);
  };
  check_float(embedding_tensor(config), {config.vocabulary + row.embedding_extra, config.hidden});
  if (!row.head_dense.empty()) {
    check_float(cat(row.head_dense, ".weight"), {config.hidden, config.hidden});
    check_part(norm_spec(config, std::string(row.head_norm), 1, config.hidden));
  }
  if (!row.position_embedding.empty()) {
    check_float(tensor_name(config, row.position_embedding),
                {config.max_positions + row.position_offset, config.hidden});
  }
  if (!row.embedding_norm.empty())
    check_part(norm_spec(config, module_path(config, row.embedding_norm), 1, config.hidden));
  check_part(norm_spec(config, module_path(config, row.final_norm), 1, config.hidden));
  if (config.per_block > 0) {
    const int64_t width = config.blocks * config.per_block;
    check_float(tensor_name(config, row.per_block.embedding), {config.per_block_vocabulary, width});
    check_float(tensor_name(config, row.per_block.projection), {width, config.hidden});
    check_part(norm_spec(config, module_path(config, row.per_block.projection_norm), 1, config.per_block));
  }
  for (const std::string_view list : {row.altup.projections, row.altup.unembed_projections}) {
    for (const PartSpec& spec : altup_projections(config, list)) check_part(spec);
  }
  const bool quantized_head = has_reader && !checkpoint.has(head_tensor(config));
  if (config.has_head && !quantized_head) check_float(head_tensor(config), {config.vocabulary, config.hidden});
  if (config.has_head && config.head_bias) check_float(config.head + ".bias", {config.vocabulary});
  for (int64_t block = 0; block < config.blocks; ++block) {
    for (const PartSpec& part : part_specs(config, block)) check_part(part);
    for (const auto& step : step_specs(config, block)) {
      for (const LinearSpec& linear : step) {
        if (!has_reader) check_float(linear.tensor, linear.shape);
        if (!linear.bias) continue;
        const std::string own = linear.matrix_index < 0 ? linear.bias_tensor : linear.name + ".bias";
        const bool has_own = linear.matrix_index < 0 || checkpoint.has(own);
        has_own ? check_float(own, {linear.out_features}) : check_float(linear.bias_tensor, linear.bias_shape);
      }
    }
  }
}

void refuse_headless(const Checkpoint& checkpoint, const ModelConfig& config) {
  if (config.has_head) return;
  throw tensor_error(checkpoint.folder(), head_tensor(config), "no output head: there is no tensor '",
                     head_tensor(config), "', and config.json does not tie it to the embedding with ",
                     "tie_word_embeddings true; its blocks can be quantized, but losses need a head");
}

void check_finite(const Checkpoint& checkpoint, const StoredTensor& tensor, ConstMatrixView values) {
  refuse_nonfinite(checkpoint, tensor, count_nonfinite(values));
}

std::vector<int64_t> stored_shape(const Checkpoint& checkpoint, const PartSpec& spec, size_t tensor) {
  const bool are_vectors = spec.heights.empty() && static_cast<int64_t>(spec.weights.size()) == spec.rows;
  if (!are_vectors) return matrix_shape(spec, tensor);
  const std::vector<int64_t> as_matrix = {1, spec.cols};
  return checkpoint.tensor(spec.weights[tensor]).shape == as_matrix ? as_matrix : std::vector<int64_t>{spec.cols};
}

}  // namespace gptq
