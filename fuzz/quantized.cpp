// Quantized folders: the linears of a model as GPTQ and compressed-tensors store them, FP8, and other sources
// dequantized. Parts of an input: config.json, the header of model.safetensors, its data (repeated),
// quantize_config.json.
#include <nlohmann/json.hpp>

#include "format/format.h"
#include "fuzz/fuzz.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto parts = fuzz::parts_of(data, size, 4);
  const fuzz::Folder& folder = fuzz::folder();
  folder.write("config.json", parts[0]);
  folder.write("model.safetensors", fuzz::safetensors_of(parts[1], parts[2]));
  folder.write("quantize_config.json", parts[3]);
  fuzz::may_refuse([&] {
    fuzz::may_refuse([&] {
      Checkpoint source(folder.path());
      if (source.can_dequantize()) source.dequantize(data[size / 2] % 2 != 0);
      for (const StoredTensor* tensor : source.tensors()) {
        std::vector<std::byte> bytes(tensor->bytes);
        source.read(*tensor, 0, bytes.size(), bytes.data());
      }
    });
    const Checkpoint checkpoint(folder.path());
    for (const StoredTensor* tensor : checkpoint.tensors()) fuzz::may_refuse([&] { checkpoint.load(*tensor); });
    const ModelConfig config = parse_model_config(checkpoint);
    if (checkpoint.quantization_config().is_null() || config.blocks > 16) return;
    const WeightReader read = quantized_reader(checkpoint);
    for (const auto& step : all_steps(config))
      for (const LinearSpec& linear : step) fuzz::may_refuse([&] { read(linear); });
  });
  return 0;
}
