// Quantized linears in checkpoints: the tensors of a linear, the quantization_config, and both back again. What the
// formats are is in gptq_format.cpp and compressed_tensors.cpp, one file each.
#pragma once

#include <span>
#include <string>
#include <variant>
#include <vector>

#include "backend/backend.h"
#include "io/checkpoint.h"
#include "model/block.h"
#include "recipe/rules.h"

namespace gptq {

// What a quantization_config says.
struct QuantizationConfig {
  int bits = 0;
  int64_t group_size = 0;
  bool sym = true, desc_act = false;
  CheckpointFormat format = CheckpointFormat::gptq;
  bool signed_scales = false;  // of what is written by this program; others do not say
  std::vector<ModuleRule> dynamic;
  bool operator==(const QuantizationConfig& other) const {
    return bits == other.bits && group_size == other.group_size && sym == other.sym && desc_act == other.desc_act &&
           format == other.format && signed_scales == other.signed_scales;
  }
};

// What is stored of a linear with this recipe.
QuantizationConfig stored_as(const Recipe& recipe);

// Throws InputError naming `where` for anything but the config of a known format.
QuantizationConfig parse_quantization_config(const Json& config, const std::string& where);

// Why a folder with this quantization_config cannot be quantized, and which one can.
std::string already_quantized(const Json& config, const std::string& where);

// The quantization_config that goes to config.json, and for a format that has_config_file() the same object to
// quantize_config.json. `unquantized`: the linears that stay as they are, the output head among them.
Json quantization_config(const Recipe& recipe, const std::vector<QuantizedLinear>& linears = {},
                         const std::vector<std::string>& unquantized = {});
bool has_config_file(const Recipe& recipe);

// Throws InputError, naming the flag, for a recipe that its format cannot hold.
void check_format(const Recipe& recipe);
// Throws InputError, naming the linear and the sizes that would work, where the format cannot hold it.
void check_shape(const LinearSpec& linear, const Recipe& recipe);

// The tensors that a linear becomes.
std::vector<TensorSpec> quantized_tensors(const LinearSpec& linear, const Recipe& recipe);

// A solved linear in host memory: its codes as qweight has them, its grid as the solver has it.
struct FetchedLinear {
  int bits = 0;
  Matrix words;          // [in * bits / 32, out] i32: the stream of output r in column r
  Matrix zeros, scales;  // [rows, groups] u8 and f32
  std::vector<int32_t> g_idx;
};
// codes [rows, in] u8, in natural order. The device packs them, which takes it the bytes of the words meanwhile. The
// matrices are of `memory`.
FetchedLinear fetch(Backend& backend, ConstMatrixView codes, const Grid& grid, const std::vector<int32_t>& g_idx,
                    Memory& memory = host_memory());

// One of quantized_tensors(): its name after the linear's, and its values.
struct PackedTensor {
  std::string part;
  // A span is of the FetchedLinear, which must live as long; uint16_t are fp16.
  std::variant<std::span<const uint32_t>, std::vector<uint32_t>, std::vector<uint16_t>, std::vector<int32_t>,
               std::vector<int64_t>>
      values;
};
using PackedLinear = std::vector<PackedTensor>;  // in the order of quantized_tensors()
PackedLinear pack(const FetchedLinear& linear, const Recipe& recipe);
// Bytes of host memory that packing and writing a linear take beside those of its matrices.
int64_t packing_bytes(const LinearSpec& linear, const Recipe& recipe);

void write_linear(CheckpointWriter& writer, const std::string& name, const PackedLinear& packed);

// Of a stored linear, from the shapes of its tensors.
struct StoredSizes {
  int bits = 0;
  int64_t group_size = 0;
};

// Whether a stored linear has negative scales.
bool has_negative_scales(const Checkpoint& checkpoint, const std::string& linear, CheckpointFormat format);

// Reads the linears of a quantized checkpoint, for Model: codes and grid in host memory, dequantized where they are
// placed. The checkpoint must outlive the reader. Throws InputError for tensors whose shapes do not fit together.
WeightReader quantized_reader(const Checkpoint& checkpoint);

}  // namespace gptq
