#include "format/format.h"

#include <algorithm>
#include <numeric>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/parallel.h"
#include "format/stored.h"
#include "io/digest.h"
#include "io/quantization_entry.h"
#include "tensor/nonfinite.h"

namespace gptq {

// Each is defined in the file of its name.
const Format& gptq_format();
const Format& gptq_v2_format();
const Format& compressed_tensors_format();

namespace {

// The formats there are. "auto" takes the first that can hold a recipe's zeros.
constexpr const Format& (*kFormats[])() = {gptq_format, gptq_v2_format, compressed_tensors_format};

constexpr const char* kAutomatic = "auto";

bool has_zeros(const Recipe& recipe) {
  return !recipe.sym || std::any_of(recipe.dynamic.begin(), recipe.dynamic.end(),
                                    [](const ModuleRule& rule) { return rule.sym == false; });
}

std::string method_of(const Json& config) {
  const auto method = config.contains("quant_method") ? config.find("quant_method") : config.find("method");
  return method != config.end() && method->is_string() ? method->get<std::string>() : "gptq";
}

}  // namespace

const Format& format_of(const Recipe& recipe) {
  for (const auto format : kFormats) {
    const bool fits = recipe.checkpoint_format == kAutomatic ? format().holds_zeros() || !has_zeros(recipe)
                                                             : format().name() == recipe.checkpoint_format;
    if (fits) return format();
  }
  throw option_error("checkpoint_format", " ", recipe.checkpoint_format, ": there are ", listed(format_names()));
}

std::vector<std::string> format_names() {
  std::vector<std::string> names = {kAutomatic};
  for (const auto format : kFormats) names.emplace_back(format().name());
  return names;
}

QuantizationConfig stored_as(const Format& format, const ResolvedRecipe& recipe) {
  return {.bits = recipe.bits,
          .group_size = *recipe.group_size,
          .sym = recipe.sym,
          .desc_act = recipe.desc_act,
          .format = &format,
          .signed_scales = *recipe.signed_scales};
}

bool reads_codes(const Json& config) {
  return std::any_of(std::begin(kFormats), std::end(kFormats), [&](const auto format) {
    return format().method() == method_of(config) && format().recognizes(config);
  });
}

QuantizationConfig parse_quantization_config(const Json& config, const std::string& where) {
  if (!config.is_object()) throw InputError(cat(where, ": quantization_config is not a JSON object"));
  const std::string method = method_of(config);
  std::string versions;  // of this method
  for (const auto format : kFormats) {
    if (format().method() != method) continue;
    if (format().recognizes(config)) return format().parse(config, where);
    versions += cat(versions.empty() ? "" : " and ", format().name());
  }
  if (versions.empty()) throw InputError(cat(where, ": quantized with '", method, "', which is not read"));
  throw InputError(
      cat(where, ": checkpoint_format '", checkpoint_format_of(config), "' is not read; ", versions, " are"));
}

std::string already_quantized(const Checkpoint& checkpoint) {
  return cat(checkpoint.folder().string(), ": its weights are already quantized, with '",
             method_of(checkpoint.quantization_config()), "'; give the unquantized model",
             checkpoint.can_dequantize() ? ", or add `from_quantized` to round these weights a second time" : "");
}

void check_shape(const LinearSpec& linear, const ResolvedRecipe& recipe) {
  if (recipe.group_size != -1 && linear.in_features % *recipe.group_size != 0) {
    std::string divisors;
    for (const int64_t size : {1024, 512, 256, 128, 64, 32, 16}) {
      if (linear.in_features % size == 0) divisors += cat(divisors.empty() ? "" : ", ", size);
    }
    throw InputError(cat("`group_size` ", *recipe.group_size, " does not divide the ", linear.in_features,
                         " inputs of ", linear.name, ": ", divisors.empty() ? "-1 does" : divisors + " and -1 do"),
                     {.option = "group_size", .file = {}, .tensor = linear.name});
  }
  for (const int64_t size : {linear.in_features, linear.out_features}) {
    if (size * recipe.bits % 32 == 0) continue;
    throw InputError(
        cat(linear.name, " [", linear.out_features, ", ", linear.in_features, "]: the format packs ", recipe.bits,
            " bits into 32-bit words, so both sizes must be multiples of ", recipe.bits == 3 ? 32 : 32 / recipe.bits,
            "; leave it out with `modules_in_block_to_quantize` or choose other `bits`"),
        {.option = "bits", .file = {}, .tensor = linear.name});
  }
}

FetchedLinear fetch(Backend& backend, ConstMatrixView codes, const Grid& grid, const std::vector<int32_t>& g_idx,
                    Memory& memory) {
  FetchedLinear linear{.bits = grid.bits, .words = {}, .zeros = {}, .scales = {}, .g_idx = g_idx};
  const auto download = [&](ConstMatrixView from) {
    Matrix to(memory, from.dtype, from.rows, from.cols);
    backend.download(to.view().data, from);
    return to;
  };
  {
    Matrix words(backend, DType::i32, codes.cols * grid.bits / 32, codes.rows);
    backend.run(ops::Pack{.codes = codes, .bits = grid.bits, .words = words});
    linear.words = download(words);
  }
  linear.zeros = download(grid.zeros);
  linear.scales = download(grid.scales);
  return linear;
}

Digests write_linear(ModelSink& sink, const std::string& name, const EncodedLinear& encoded) {
  Digests digests;
  for (const EncodedTensor& tensor : encoded) {
    const auto write = [&](const auto& values) {
      const std::string full_name = cat(name, ".", tensor.part);
      const size_t bytes = values.size() * sizeof(values[0]);
      sink.write(full_name, values.data(), bytes);
      digests.emplace_back(full_name, digest(values.data(), bytes));
    };
    std::visit(write, tensor.values);
  }
  return digests;
}

Matrix HostLinear::dequantized(Backend& backend, DType dtype) const {
  const auto cols = static_cast<int64_t>(g_idx.size());
  Matrix codes(backend, DType::u8, rows, cols);
  {
    const Matrix packed = to_device(backend, DType::i32, words.rows(), words.cols(), words.view().data);
    backend.run(ops::Unpack{.words = packed, .bits = bits, .codes = codes});
  }
  const Matrix device_scales = to_device(backend, DType::f32, rows, groups, scales.data());
  const Matrix device_zeros = to_device(backend, DType::u8, rows, groups, zeros.data());
  Matrix weight(backend, dtype, rows, cols);
  backend.run(ops::Dequantize{
      .codes = codes, .groups = g_idx, .grid = {device_scales.view(), device_zeros.view(), bits}, .w = weight});
  return weight;
}

std::optional<PackedMatrices> HostLinear::packed(Backend& backend) const {
  const auto inputs = static_cast<int64_t>(g_idx.size());
  PackedMatrices result{.bits = bits};
  std::vector<int32_t> order(g_idx.size());
  std::iota(order.begin(), order.end(), 0);
  const auto is_before = [&](int32_t a, int32_t b) { return g_idx[a] < g_idx[b]; };
  const bool is_sorted = std::is_sorted(g_idx.begin(), g_idx.end());
  if (!is_sorted) std::stable_sort(order.begin(), order.end(), is_before);
  result.group_size = std::count(g_idx.begin(), g_idx.end(), 0);
  const int64_t whole = bits == 3 ? 32 : 32 / bits;  // codes that fill words
  if (inputs == 0 || result.group_size == 0 || (groups > 1 && result.group_size % whole != 0)) return std::nullopt;
  for (int64_t k = 0; k < inputs; ++k) {
    if (g_idx[order[k]] != k / result.group_size) return std::nullopt;
  }
  result.words = to_device(backend, DType::i32, words.rows(), words.cols(), words.view().data);
  if (!is_sorted) {
    Matrix codes(backend, DType::u8, rows, inputs), sorted(backend, DType::u8, rows, inputs);
    backend.run(ops::Unpack{.words = result.words, .bits = bits, .codes = codes});
    backend.run(ops::GatherColumns{.x = codes, .ids = order, .y = sorted});
    backend.run(ops::Pack{.codes = sorted, .bits = bits, .words = result.words});
    result.order = std::move(order);
  }
  std::vector<float> scales_by_group(scales.size());
  std::vector<uint8_t> zeros_by_group(zeros.size());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      scales_by_group[group * rows + row] = scales[row * groups + group];
      zeros_by_group[group * rows + row] = zeros[row * groups + group];
    }
  }
  // As narrow as they are exact.
  const bool are_halves =
      std::all_of(scales.begin(), scales.end(), [](float scale) { return static_cast<float>(Half(scale)) == scale; });
  const ConstMatrixView wide(scales_by_group.data(), DType::f32, groups, rows);
  result.scales = place_matrix(wide, backend, are_halves ? DType::f16 : DType::f32);
  result.zeros = to_device(backend, DType::u8, groups, rows, zeros_by_group.data());
  return result;
}

bool has_negative_scales(const Checkpoint& checkpoint, const std::string& linear, const Format& format) {
  const std::vector<float> scales = load_scales(checkpoint, checkpoint.tensor(cat(linear, ".", format.parts().scales)));
  return std::any_of(scales.begin(), scales.end(), [](float scale) { return scale < 0; });
}

void check_scales(const Checkpoint& checkpoint, const std::vector<const StoredTensor*>& scales,
                  const std::stop_token& stop) {
  std::vector<int64_t> bad(scales.size());
  ThreadPool pool;
  pool.for_each(static_cast<int64_t>(scales.size()), [&](int64_t i) {
    check_stop(stop);
    const StoredTensor& tensor = *scales[i];
    const std::optional<DType> dtype = parse_safetensors_dtype(tensor.dtype);
    if (!dtype || !is_float(*dtype)) {
      throw tensor_error(checkpoint.folder(), tensor.name, tensor.name, " is ", tensor.dtype,
                         ", where scales are F16, BF16 or F32");
    }
    bad[i] = count_nonfinite(checkpoint.load(tensor));
  });
  for (size_t i = 0; i < scales.size(); ++i) refuse_nonfinite(checkpoint, *scales[i], bad[i]);
}

WeightReader quantized_reader(const Checkpoint& checkpoint, ModelUse use) {
  const QuantizationConfig config =
      parse_quantization_config(checkpoint.quantization_config(), checkpoint.folder().string());
  return [&checkpoint, config, use](const LinearSpec& spec) -> PlaceWeight {
    if (!checkpoint.has(cat(spec.name, ".", config.format->parts().codes))) return {};
    // Shared, so that copies of the function do not copy the weights.
    auto linear = std::make_shared<const HostLinear>(config.format->read(checkpoint, spec, config));
    return [linear, use](Backend& backend, DType dtype) -> Weight {
      std::optional<PackedMatrices> packed;
      if (use == ModelUse::texts) packed = linear->packed(backend);
      return packed ? Weight(std::move(*packed)) : Weight(linear->dequantized(backend, dtype));
    };
  };
}

}  // namespace gptq
