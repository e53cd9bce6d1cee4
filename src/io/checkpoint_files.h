// Finds the files of a Hugging Face model folder: those of the weights, and what belongs to the model beside them.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace gptq {

// Names of a folder's weights, as transformers has them.
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";
// ModelOpt's quantization config, which belongs to the weights.
constexpr const char* kModelOptName = "hf_quant_config.json";

// Paths relative to the folder.
struct WeightFiles {
  std::set<std::filesystem::path> names;
  std::map<std::string, std::filesystem::path> index;  // tensor name to file; empty without an index
  std::vector<std::string> warnings;                   // other weights in the folder that are not read
};

// Throws InputError for what is no Hugging Face model folder, and says what it seems to be: an adapter, another format,
// a place in the Hub's cache, a name on the Hub.
void check_model_folder(const std::filesystem::path& folder);

// As transformers chooses: model.safetensors, else the shards that model.safetensors.index.json names, else the only
// *.safetensors. An index that names model.safetensors among others is read in spite of it. Throws InputError for an
// index that names a missing shard or a file outside the folder, and for a folder without such files (for
// pytorch_model.bin it says how to convert).
WeightFiles find_weights(const std::filesystem::path& folder);

// The model's other regular files, subfolders included, as sorted relative paths; follows links to files, not to
// folders. Omits config.json, quantize_config.json and hf_quant_config.json; hidden files and folders (.git, .cache);
// unquantized weights of any format and their indices (*.safetensors, *model*.bin, *.pt, *.pth, *.ckpt, *.gguf, *.h5,
// *.msgpack, *.ot, *.onnx, *.onnx_data); and the folder original/, where some models have a copy in their author's own
// format.
// Throws InputError for a link that leads out of the folder, except to a file of the same repository in a Hugging Face
// cache, and for a pipe, a socket or a device.
std::vector<std::filesystem::path> find_side_files(const std::filesystem::path& folder);

}  // namespace gptq
