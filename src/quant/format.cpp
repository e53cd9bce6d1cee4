#include "quant/format.h"

#include <algorithm>

#include "base/error.h"
#include "quant/linear_format.h"
#include "quant/recipe.h"

namespace gptq {
namespace {

const LinearFormat& format_of(const Recipe& recipe) { return linear_format(resolved_format(recipe)); }

std::string method_of(const Json& config) {
  const auto method = config.contains("quant_method") ? config.find("quant_method") : config.find("method");
  return method != config.end() && method->is_string() ? method->get<std::string>() : "gptq";
}

// The format that a config is of.
const LinearFormat& format_of(const Json& config, const std::string& where) {
  const std::string method = method_of(config);
  if (method == "mxfp4") throw InputError(already_quantized(config, where));
  if (method == "compressed-tensors") return compressed_tensors_format();
  if (method != "gptq") {
    throw InputError(
        cat(where, ": quantized with '", method,
            "'; this program reads GPTQ and compressed-tensors folders, FP8 weights and unquantized ones"));
  }
  const std::string format = config.value("checkpoint_format", config.value("format", std::string("gptq")));
  if (format == "gptq") return gptq_format();
  if (format == "gptq_v2") return gptq_v2_format();
  throw InputError(cat(where, ": checkpoint_format '", format, "' is not read; gptq and gptq_v2 are"));
}

std::string name_of_part(const std::string& linear, std::string_view part) { return cat(linear, ".", part); }

}  // namespace

QuantizationConfig parse_quantization_config(const Json& config, const std::string& where) {
  if (!config.is_object()) throw InputError(cat(where, ": quantization_config is not a JSON object"));
  return format_of(config, where).parse(config, where);
}

std::string already_quantized(const Json& config, const std::string& where) {
  const std::string method = method_of(config);
  if (method != "mxfp4")
    return cat(where, ": its weights are already quantized, with '", method, "'; give the unquantized model");
  return cat(where, ": its weights are in MXFP4; take an upload of the model in bf16, or write one: python -c \"",
             "from transformers import AutoModelForCausalLM, Mxfp4Config; AutoModelForCausalLM.from_pretrained('",
             where, "', quantization_config=Mxfp4Config(dequantize=True)).save_pretrained('NEW_FOLDER')\"");
}

QuantizationConfig stored_as(const Recipe& recipe) {
  return {.bits = recipe.bits,
          .group_size = recipe.group_size,
          .sym = recipe.sym,
          .desc_act = recipe.desc_act,
          .format = resolved_format(recipe),
          .signed_scales = *resolved(recipe).signed_scales};
}

Json quantization_config(const Recipe& recipe, const std::vector<QuantizedLinear>& linears,
                         const std::vector<std::string>& unquantized) {
  return format_of(recipe).config(recipe, linears, unquantized);
}

bool has_config_file(const Recipe& recipe) { return format_of(recipe).has_config_file(); }

void check_format(const Recipe& recipe) { format_of(recipe).check(recipe); }

void check_shape(const LinearSpec& linear, const Recipe& recipe) {
  if (recipe.group_size != -1 && linear.in_features % recipe.group_size != 0) {
    std::string divisors;
    for (const int64_t size : {1024, 512, 256, 128, 64, 32, 16}) {
      if (linear.in_features % size == 0) divisors += cat(divisors.empty() ? "" : ", ", size);
    }
    throw InputError(cat("--group-size ", recipe.group_size, " does not divide the ", linear.in_features, " inputs of ",
                         linear.name, ": ", divisors.empty() ? "-1 does" : divisors + " and -1 do"));
  }
  for (const int64_t size : {linear.in_features, linear.out_features}) {
    if (size * recipe.bits % 32 == 0) continue;
    throw InputError(cat(linear.name, " [", linear.out_features, ", ", linear.in_features, "]: the format packs ",
                         recipe.bits, " bits into 32-bit words, so both sizes must be multiples of ",
                         recipe.bits == 3 ? 32 : 32 / recipe.bits,
                         "; leave it out with --modules-in-block-to-quantize or choose other --bits"));
  }
}

std::vector<TensorSpec> quantized_tensors(const LinearSpec& linear, const Recipe& recipe) {
  return format_of(recipe).tensors(linear, recipe);
}

FetchedLinear fetch(Backend& backend, const Quantized& quantized, Memory& memory) {
  FetchedLinear linear{.bits = quantized.bits, .words = {}, .zeros = {}, .scales = {}, .g_idx = quantized.g_idx};
  const auto download = [&](const Matrix& from) {
    Matrix to(memory, from.dtype(), from.rows(), from.cols());
    backend.download(to.view().data, from);
    return to;
  };
  {
    Matrix words(backend, DType::i32, quantized.codes.cols() * quantized.bits / 32, quantized.codes.rows());
    backend.run(ops::Pack{.codes = quantized.codes, .bits = quantized.bits, .words = words});
    linear.words = download(words);
  }
  linear.zeros = download(quantized.zeros);
  linear.scales = download(quantized.scales);
  return linear;
}

PackedLinear pack(const FetchedLinear& linear, const Recipe& recipe) { return format_of(recipe).pack(linear, recipe); }

int64_t packing_bytes(const LinearSpec& linear, const Recipe& recipe) {
  return format_of(recipe).packing_bytes(linear, recipe);
}

void write_linear(CheckpointWriter& writer, const std::string& name, const PackedLinear& packed) {
  for (const PackedTensor& tensor : packed) {
    const auto write = [&](const auto& values) {
      writer.write(name_of_part(name, tensor.part), values.data(), values.size() * sizeof(values[0]));
    };
    std::visit(write, tensor.values);
  }
}

bool has_negative_scales(const Checkpoint& checkpoint, const std::string& linear, CheckpointFormat format) {
  const std::string name = name_of_part(linear, linear_format(format).parts().scales);
  const std::vector<float> scales = to_floats(checkpoint, checkpoint.tensor(name));
  return std::any_of(scales.begin(), scales.end(), [](float scale) { return scale < 0; });
}

WeightReader quantized_reader(const Checkpoint& checkpoint) {
  const QuantizationConfig config =
      parse_quantization_config(checkpoint.quantization_config(), checkpoint.folder().string());
  const LinearFormat& format = linear_format(config.format);
  return [&checkpoint, &format, config](const LinearSpec& spec) -> PlaceWeight {
    if (!checkpoint.has(name_of_part(spec.name, format.parts().codes))) return {};
    // Shared, so that copies of the function do not copy the weights.
    auto linear = std::make_shared<const HostLinear>(format.read(checkpoint, spec, config));
    return [linear](Backend& backend, DType dtype) { return linear->dequantized(backend, dtype); };
  };
}

}  // namespace gptq
