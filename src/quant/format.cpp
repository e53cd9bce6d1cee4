#include "quant/format.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "quant/pack.h"
#include "quant/recipe.h"

namespace gptq {
namespace {

// v1 stores zero - 1, field by field; v2 stores zero.
int stored_zero_offset(CheckpointFormat format) { return format == CheckpointFormat::gptq ? 1 : 0; }

int64_t effective_group_size(const Recipe& recipe, int64_t in_features) {
  return recipe.group_size == -1 ? in_features : recipe.group_size;
}

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

const StoredTensor& checked(const Checkpoint& checkpoint, const std::string& name,
                            const std::vector<std::string>& dtypes, const std::vector<int64_t>& shape) {
  const StoredTensor& tensor = checkpoint.tensor(name);
  if (tensor.shape != shape) {
    throw InputError(cat(checkpoint.folder().string(), ": ", name, " has shape ", shape_string(tensor.shape),
                         ", where the linear needs ", shape_string(shape)));
  }
  if (std::find(dtypes.begin(), dtypes.end(), tensor.dtype) == dtypes.end()) {
    throw InputError(
        cat(checkpoint.folder().string(), ": ", name, " is ", tensor.dtype, ", where GPTQ stores ", dtypes[0]));
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

// A quantized linear in host memory.
struct HostLinear {
  int64_t rows = 0, groups = 0;
  int bits = 0;
  std::vector<uint8_t> codes, zeros;  // [rows, in], [rows, groups]
  std::vector<float> scales;          // [rows, groups]
  std::vector<int32_t> g_idx;

  Matrix dequantized(Backend& backend, DType dtype) const {
    const auto cols = static_cast<int64_t>(g_idx.size());
    const Matrix device_codes = to_device(backend, DType::u8, rows, cols, codes.data());
    const Matrix device_scales = to_device(backend, DType::f32, rows, groups, scales.data());
    const Matrix device_zeros = to_device(backend, DType::u8, rows, groups, zeros.data());
    Matrix weight(backend, dtype, rows, cols);
    backend.dequantize(device_codes, g_idx, {device_scales.view(), device_zeros.view(), bits}, weight);
    return weight;
  }
};

// Reads one linear; see FORMAT of quantized_tensors().
HostLinear read_quantized(const Checkpoint& checkpoint, const LinearSpec& spec, const QuantizationConfig& config) {
  const int64_t in = spec.in_features, out = spec.out_features;
  const StoredTensor& qweight = checkpoint.tensor(spec.name + ".qweight");
  const StoredTensor& scales = checkpoint.tensor(spec.name + ".scales");
  // Modules may differ in bits ("dynamic"): the shapes say which.
  const int bits = qweight.shape.size() == 2 && in > 0 ? static_cast<int>(qweight.shape[0] * 32 / in) : 0;
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
    throw InputError(cat(checkpoint.folder().string(), ": ", spec.name, ".qweight has shape ",
                         shape_string(qweight.shape), ", which is no 2, 3, 4 or 8 bit packing of ", in, " inputs"));
  }
  checked(checkpoint, spec.name + ".qweight", {"I32"}, {in * bits / 32, out});
  const int64_t groups = scales.shape.empty() ? 0 : scales.shape[0];
  checked(checkpoint, spec.name + ".scales", {"F16", "BF16", "F32"}, {groups, out});
  const StoredTensor& qzeros = checked(checkpoint, spec.name + ".qzeros", {"I32"}, {groups, out * bits / 32});

  std::vector<int32_t> g_idx(static_cast<size_t>(in));
  if (checkpoint.has(spec.name + ".g_idx")) {
    g_idx = elements<int32_t>(checkpoint, checked(checkpoint, spec.name + ".g_idx", {"I32"}, {in}));
  } else {
    const int64_t group_size = groups > 0 ? (in + groups - 1) / groups : in;
    for (int64_t k = 0; k < in; ++k) g_idx[k] = static_cast<int32_t>(k / group_size);
  }
  for (const int32_t group : g_idx) {
    if (group < 0 || group >= groups) {
      throw InputError(
          cat(checkpoint.folder().string(), ": ", spec.name, ".g_idx names group ", group, " of ", groups));
    }
  }

  ThreadPool pool;
  std::vector<uint8_t> codes = unpack_streams(elements<uint32_t>(checkpoint, qweight), in, out, bits, pool);
  std::vector<uint8_t> zeros = unpack_cols(elements<uint32_t>(checkpoint, qzeros), groups, out, bits);
  const int mask = (1 << bits) - 1, offset = stored_zero_offset(config.format);
  for (uint8_t& zero : zeros) zero = static_cast<uint8_t>((zero + offset) & mask);

  return {.rows = out,
          .groups = groups,
          .bits = bits,
          .codes = std::move(codes),
          .zeros = transposed<uint8_t>(zeros, groups, out),
          .scales = transposed<float>(to_floats(checkpoint, scales), groups, out),
          .g_idx = std::move(g_idx)};
}

}  // namespace

QuantizationConfig parse_quantization_config(const Json& config, const std::string& where) {
  const auto fail = [&](const std::string& what) { throw InputError(cat(where, ": ", what)); };
  if (!config.is_object()) fail("quantization_config is not a JSON object");
  const std::string method = config.value("quant_method", config.value("method", std::string("gptq")));
  if (method != "gptq")
    fail(cat("quantized with '", method, "'; this program reads GPTQ folders and unquantized ones"));
  const std::string format = config.value("checkpoint_format", config.value("format", std::string("gptq")));
  if (format != "gptq" && format != "gptq_v2")
    fail(cat("checkpoint_format '", format, "' is not read; gptq and gptq_v2 are"));
  QuantizationConfig result;
  try {
    result.bits = config.at("bits").get<int>();
    result.group_size = config.at("group_size").get<int64_t>();
    result.sym = config.value("sym", true);
    result.desc_act = config.value("desc_act", false);
  } catch (const nlohmann::json::exception&) {
    fail("quantization_config needs the numbers bits and group_size, and true or false for sym and desc_act");
  }
  result.format = format == "gptq" ? CheckpointFormat::gptq : CheckpointFormat::gptq_v2;
  return result;
}

Json quantization_config(const Recipe& recipe) {
  const std::string format(name_of(resolved_format(recipe)));
  const Recipe decided = resolved(recipe);
  Json config = {{"quant_method", "gptq"},
                 {"method", "gptq"},
                 {"checkpoint_format", format},
                 {"format", format},
                 {"bits", recipe.bits},
                 {"group_size", recipe.group_size},
                 {"sym", recipe.sym},
                 {"desc_act", recipe.desc_act},
                 {"lm_head", false},
                 {"pack_dtype", "int32"},
                 {"true_sequential", recipe.true_sequential},
                 {"damp_percent", recipe.damp_percent},
                 {"static_groups", recipe.static_groups}};
  if (!recipe.modules_in_block_to_quantize.empty()) {
    config["modules_in_block_to_quantize"] = recipe.modules_in_block_to_quantize;
  }
  config["meta"] = {{"quantizer", {"gptq.cpp:" + version()}},
                    {"quantization_method", name_of(recipe.method)},
                    {"scale_search", name_of(recipe.scale_search)},
                    {"order", name_of(recipe.order)},
                    {"act_group_aware", recipe.order == Order::group_aware},
                    {"signed_scales", decided.signed_scales.value_or(false)},
                    {"targets", name_of(decided.targets)},
                    {"refine", decided.refine}};
  if (decided.targets != Targets::weights) config["meta"]["alpha"] = decided.alpha.value_or(0);
  return config;
}

void check_shape(const LinearSpec& linear, const Recipe& recipe) {
  const int64_t group_size = effective_group_size(recipe, linear.in_features);
  if (linear.in_features % group_size != 0) {
    std::string divisors;
    for (const int64_t size : {1024, 512, 256, 128, 64, 32, 16}) {
      if (linear.in_features % size == 0) divisors += cat(divisors.empty() ? "" : ", ", size);
    }
    throw InputError(cat("--group-size ", recipe.group_size, " does not divide the ", linear.in_features, " inputs of ",
                         linear.name, ": ", divisors.empty() ? "-1 does" : divisors + " and -1 do"));
  }
  for (const int64_t size : {linear.in_features, linear.out_features}) {
    if (size * recipe.bits % 32 == 0) continue;
    throw InputError(cat(linear.name, " [", linear.out_features, ", ", linear.in_features, "]: the GPTQ format packs ",
                         recipe.bits, " bits into 32-bit words, so both sizes must be multiples of ",
                         recipe.bits == 3 ? 32 : 32 / recipe.bits,
                         "; leave it out with --modules-in-block-to-quantize or choose other --bits"));
  }
}

std::vector<TensorSpec> quantized_tensors(const LinearSpec& linear, const Recipe& recipe) {
  const int64_t in = linear.in_features, out = linear.out_features, groups = in / effective_group_size(recipe, in);
  return {{linear.name + ".qweight", "I32", {in * recipe.bits / 32, out}},
          {linear.name + ".qzeros", "I32", {groups, out * recipe.bits / 32}},
          {linear.name + ".scales", "F16", {groups, out}},
          {linear.name + ".g_idx", "I32", {in}}};
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
    backend.pack(quantized.codes, quantized.bits, words);
    linear.words = download(words);
  }
  linear.zeros = download(quantized.zeros);
  linear.scales = download(quantized.scales);
  return linear;
}

PackedLinear pack(const FetchedLinear& linear, CheckpointFormat format) {
  const int64_t out = linear.scales.rows(), groups = linear.scales.cols();
  const int mask = (1 << linear.bits) - 1, offset = stored_zero_offset(format);
  PackedLinear packed;
  packed.qweight = elements<uint32_t>(linear.words);
  std::vector<uint8_t> zeros = transposed<uint8_t>(elements<uint8_t>(linear.zeros), out, groups);
  for (uint8_t& zero : zeros) zero = static_cast<uint8_t>((zero - offset) & mask);
  packed.qzeros = pack_cols(zeros, groups, out, linear.bits);
  packed.scales.resize(static_cast<size_t>(out * groups));
  for (int64_t r = 0; r < out; ++r) {
    for (int64_t g = 0; g < groups; ++g) packed.scales[g * out + r] = Half(linear.scales.row<float>(r)[g]).bits;
  }
  packed.g_idx = linear.g_idx;
  return packed;
}

int64_t packing_bytes(const LinearSpec& linear, const Recipe& recipe) {
  const int64_t grid = linear.out_features * (linear.in_features / effective_group_size(recipe, linear.in_features));
  // Zeros transposed and packed, scales in fp16; g_idx as fetched and as packed.
  return grid + grid * recipe.bits / 8 + grid * 2 + 2 * linear.in_features * 4;
}

void write_linear(CheckpointWriter& writer, const std::string& name, const PackedLinear& packed) {
  writer.write(name + ".qweight", packed.qweight.data(), packed.qweight.size() * sizeof(uint32_t));
  writer.write(name + ".qzeros", packed.qzeros.data(), packed.qzeros.size() * sizeof(uint32_t));
  writer.write(name + ".scales", packed.scales.data(), packed.scales.size() * sizeof(uint16_t));
  writer.write(name + ".g_idx", packed.g_idx.data(), packed.g_idx.size() * sizeof(int32_t));
}

bool has_negative_scales(const Checkpoint& checkpoint, const std::string& linear) {
  const std::vector<float> scales = to_floats(checkpoint, checkpoint.tensor(linear + ".scales"));
  return std::any_of(scales.begin(), scales.end(), [](float scale) { return scale < 0; });
}

WeightReader quantized_reader(const Checkpoint& checkpoint) {
  const QuantizationConfig config =
      parse_quantization_config(checkpoint.quantization_config(), checkpoint.folder().string());
  return [&checkpoint, config](const LinearSpec& spec) -> PlaceWeight {
    if (!checkpoint.has(spec.name + ".qweight")) return {};
    // Shared, so that copies of the function do not copy the weights.
    auto linear = std::make_shared<const HostLinear>(read_quantized(checkpoint, spec, config));
    return [linear](Backend& backend, DType dtype) { return linear->dequantized(backend, dtype); };
  };
}

}  // namespace gptq
