#include "io/checkpoint_files.h"

#include <algorithm>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// Sorted keys for fast lookup: an index names up to hundreds of thousands of tensors.
using IndexJson = nlohmann::json;

bool is_weight_file(const fs::path& relative) {
  static constexpr std::string_view kExtensions[] = {".safetensors", ".pt", ".pth",     ".ckpt", ".gguf",
                                                     ".h5",          ".ot", ".msgpack", ".onnx", ".onnx_data"};
  const std::string extension = relative.extension().string();
  return std::count(std::begin(kExtensions), std::end(kExtensions), extension) != 0 ||
         (extension == ".bin" && relative.stem().string().find("model") != std::string::npos);
}

bool is_weight_index(const fs::path& relative) {
  const std::string name = relative.filename().string();
  constexpr std::string_view suffix = ".index.json";
  return name.ends_with(suffix) && is_weight_file(name.substr(0, name.size() - suffix.size()));
}

// The weight_map of an index: tensor name to shard. Checks that every shard exists in the folder.
std::map<std::string, fs::path> read_index(const fs::path& folder) {
  const fs::path path = folder / kIndexName;
  const IndexJson index = parse_json<IndexJson>(read_text(path, kMaxConfigBytes), path);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object() ||
      index["weight_map"].empty()) {
    throw file_error(path, "no weight_map of tensor names to files");
  }
  std::map<std::string, fs::path> shards;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string()) throw file_error(path, "tensor '", tensor, "' has no file name");
    const fs::path shard = file.get<std::string>();
    if (shard.empty() || shard.is_absolute() || std::count(shard.begin(), shard.end(), "..") != 0) {
      throw file_error(path, "tensor '", tensor, "' is said to be in '", shard.string(),
                       "', which is not a file of this folder");
    }
    if (!is_there(folder / shard)) {
      throw file_error(path, "tensor '", tensor, "' is said to be in ", shard.string(),
                       ", which is missing: the download is not complete");
    }
    shards[tensor] = shard.lexically_normal();
  }
  return shards;
}

InputError needs_conversion(const fs::path& folder, const std::string& weights) {
  const std::string gguf = weights.ends_with(".gguf") ? ", gguf_file='" + weights + "'" : "";
  return file_error(folder, "its weights are in ", weights,
                    "; convert them to safetensors: python -c \"from transformers import AutoModelForCausalLM; ",
                    "AutoModelForCausalLM.from_pretrained('", folder.string(), "'", gguf,
                    ", torch_dtype='auto').save_pretrained('NEW_FOLDER', safe_serialization=True)\", and copy the "
                    "tokenizer's files there");
}

// The safetensors file of a folder that has no index.
std::string single_weight_file(const fs::path& folder) {
  if (is_there(folder / kSingleName)) return kSingleName;
  std::set<std::string> files, others;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const fs::path name = entry->path().filename();
    if (name.extension() == ".safetensors") {
      files.insert(name.string());
    } else if (is_weight_file(name)) {
      others.insert(name.string());
    }
  }
  if (error) throw cannot(folder, "list it", error.value());
  if (files.size() == 1) return *files.begin();
  if (files.size() > 1) {
    throw file_error(folder, "several safetensors files (", *files.begin(), ", ", *files.rbegin(), ") and no ",
                     kIndexName, " that says what belongs together");
  }
  if (!others.empty()) throw needs_conversion(folder, *others.begin());
  throw file_error(folder, "no weights in it: neither ", kSingleName, " nor ", kIndexName);
}

// Whether the target of a link belongs to the model in `folder`, both resolved: it lies in the folder or, as in the
// Hugging Face cache, in the repository's folder models--NAME or in a folder blobs above.
bool is_of_model(const fs::path& target, const fs::path& folder) {
  if (is_inside(target, folder)) return true;
  for (fs::path above = folder.parent_path(); above.has_relative_path(); above = above.parent_path()) {
    if (is_inside(target, above / "blobs")) return true;
    if (above.filename().string().starts_with("models--") && is_inside(target, above)) return true;
  }
  return false;
}

// Throws InputError for a side file that is not to be copied.
void check_side_file(const fs::directory_entry& entry, fs::file_type type, const fs::path& folder) {
  std::error_code error;
  if (type == fs::file_type::not_found)
    throw file_error(entry.path(), "a link to a file that is missing: the download is not complete");
  if (entry.is_symlink(error)) {
    if (const fs::path target = resolved(entry.path()); !is_of_model(target, folder)) {
      throw file_error(entry.path(), "a link out of the model's folder, to ", target.string(),
                       ", which is not copied with the model; remove the link, or put the file itself in its place");
    }
  }
  if (type != fs::file_type::regular) {
    const char* kind = type == fs::file_type::fifo ? "pipe" : type == fs::file_type::socket ? "socket" : "device";
    throw file_error(entry.path(), "a ", kind,
                     ", which cannot be copied with the model; remove it from the model's folder");
  }
}

}  // namespace

WeightFiles find_weights(const fs::path& folder) {
  WeightFiles weights;
  if (is_there(folder / kIndexName)) {
    weights.index = read_index(folder);
    for (const auto& [tensor, shard] : weights.index) weights.names.insert(shard);
  } else {
    weights.names.insert(single_weight_file(folder));
  }
  return weights;
}

std::vector<fs::path> find_side_files(const fs::path& folder) {
  const fs::path real_folder = resolved(folder);
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const fs::path relative = entry->path().lexically_relative(folder);  // a link keeps its own name
    if (relative.filename().string().starts_with(".") || relative == "original") {
      entry.disable_recursion_pending();
      continue;
    }
    if (relative == "config.json" || relative == "quantize_config.json" || is_weight_file(relative) ||
        is_weight_index(relative)) {
      continue;
    }
    const fs::file_type type = type_of(entry->path());
    if (type == fs::file_type::directory) continue;
    check_side_file(*entry, type, real_folder);
    files.push_back(relative);
  }
  if (error) throw cannot(folder, "list it", error.value());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace gptq
