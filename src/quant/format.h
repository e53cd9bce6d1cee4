// The GPTQ checkpoint format: the tensors of a quantized linear, the quantization_config, and both back again.
// Reference: https://garden.danieldk.eu/GPTQ-Checkpoint-Format, and the loaders of AutoGPTQ, GPTQModel, vLLM and
// ExLlamaV2.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "io/checkpoint.h"
#include "model/block.h"
#include "quant/solver.h"

namespace gptq {

// What a quantization_config says.
struct QuantizationConfig {
  int bits = 0;
  int64_t group_size = 0;
  bool sym = true, desc_act = false;
  CheckpointFormat format = CheckpointFormat::gptq;
  bool signed_scales = false;  // of what is written by this program; others do not say
};

// Throws InputError naming `where` for anything but a GPTQ config of a known format.
QuantizationConfig parse_quantization_config(const Json& config, const std::string& where);

// The quantization_config that goes, the same object, to config.json and to quantize_config.json.
Json quantization_config(const Recipe& recipe);

// Throws InputError, naming the linear and the sizes that would work, where the format cannot hold it.
void check_shape(const LinearSpec& linear, const Recipe& recipe);

// qweight I32 [in * bits / 32, out], qzeros I32 [groups, out * bits / 32], scales F16 [groups, out], g_idx I32 [in].
std::vector<TensorSpec> quantized_tensors(const LinearSpec& linear, const Recipe& recipe);

// A solved linear in host memory: its codes as the format has them, its grid as the solver has it.
struct FetchedLinear {
  int bits = 0;
  Matrix words;          // qweight
  Matrix zeros, scales;  // [rows, groups] u8 and f32
  std::vector<int32_t> g_idx;
};
// The device packs the codes, which takes it the bytes of qweight meanwhile. The matrices are of `memory`.
FetchedLinear fetch(Backend& backend, const Quantized& quantized, Memory& memory = host_memory());

// The bytes of quantized_tensors(), in the same order.
struct PackedLinear {
  std::span<const uint32_t> qweight;  // the words of the FetchedLinear, which must live as long
  std::vector<uint32_t> qzeros;
  std::vector<uint16_t> scales;  // fp16
  std::vector<int32_t> g_idx;
};
PackedLinear pack(const FetchedLinear& linear, CheckpointFormat format);
// Bytes of host memory that packing and writing a linear take beside those of its matrices.
int64_t packing_bytes(const LinearSpec& linear, const Recipe& recipe);

// Writes the tensors of quantized_tensors().
void write_linear(CheckpointWriter& writer, const std::string& name, const PackedLinear& packed);

// Whether a stored linear has negative scales.
bool has_negative_scales(const Checkpoint& checkpoint, const std::string& linear);

// Reads the linears of a quantized checkpoint, for Model: codes and grid in host memory, dequantized where they are
// placed. The checkpoint must outlive the reader. Throws InputError for tensors whose shapes do not fit together.
WeightReader quantized_reader(const Checkpoint& checkpoint);

}  // namespace gptq
