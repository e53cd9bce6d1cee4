#include "io/checkpoint_files.h"

#include <algorithm>
#include <cctype>
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

// The weight_map of an index: tensor name to shard.
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
    shards[tensor] = shard.lexically_normal();
  }
  return shards;
}

void refuse_missing_shards(const fs::path& folder, const std::map<std::string, fs::path>& index) {
  std::set<fs::path> seen;
  for (const auto& [tensor, shard] : index) {
    if (!seen.insert(shard).second || is_there(folder / shard)) continue;
    throw file_error(folder / kIndexName, "tensor '", tensor, "' is said to be in ", shard.string(),
                     ", which is missing: the download is not complete");
  }
}

// "model-00001-of-00002.safetensors", as transformers names shards.
bool is_shard_name(const std::string& name) {
  constexpr std::string_view kPattern = "model-#####-of-#####.safetensors";
  return name.size() == kPattern.size() && std::equal(name.begin(), name.end(), kPattern.begin(), [](char c, char of) {
           return of == '#' ? c >= '0' && c <= '9' : c == of;
         });
}

// What else the folder of a model.safetensors has that looks like its weights.
std::vector<std::string> others_beside_single(const fs::path& folder, const std::map<std::string, fs::path>& index) {
  std::set<fs::path> shards;
  for (const auto& [tensor, shard] : index) shards.insert(shard);
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (is_shard_name(entry->path().filename().string())) shards.insert(entry->path().filename());
  }
  std::vector<std::string> warnings;
  const auto missing = std::find_if(shards.begin(), shards.end(), [&](const auto& s) { return !is_there(folder / s); });
  if (missing != shards.end()) {
    warnings.push_back(cat(folder.string(), ": ", kSingleName, " is read, and not ", kIndexName, ", whose shard ",
                           missing->string(), " is missing"));
  } else if (!shards.empty()) {
    warnings.push_back(cat(folder.string(), " holds two sets of weights: ", kSingleName,
                           " is read, as in transformers, and not the shards ", shards.begin()->string(), " to ",
                           shards.rbegin()->string(), "; remove what is not the model"));
  }
  return warnings;
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

// "org/name", as the Hub names models.
bool is_hub_name(const std::string& text) {
  const auto fits = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
  };
  return !text.empty() && std::isalnum(static_cast<unsigned char>(text[0])) != 0 &&
         std::count(text.begin(), text.end(), '/') == 1 && text.back() != '/' &&
         std::all_of(text.begin(), text.end(), fits);
}

// The first subfolder of a folder whose name starts so and which has a config.json, or "".
std::string folder_with_config(const fs::path& folder, std::string_view start = "") {
  std::set<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(start) && is_there(entry->path() / "config.json")) names.insert(name);
  }
  return names.empty() ? "" : *names.begin();
}

}  // namespace

void check_model_folder(const fs::path& folder) {
  if (!is_there(folder)) {
    if (!is_hub_name(folder.string())) throw file_error(folder, "no such folder");
    throw file_error(folder, "no such folder here; if this is a name on the Hub, download it first: hf download ",
                     folder.string(), " --local-dir FOLDER");
  }
  if (type_of(folder) != fs::file_type::directory)
    throw file_error(folder, "not a folder; give the folder that holds config.json");
  if (is_there(folder / "config.json")) return;
  if (is_there(folder / "adapter_config.json")) {
    const Json adapter = read_json(folder / "adapter_config.json");
    const Json base = adapter.is_object() ? adapter.value("base_model_name_or_path", Json()) : Json();
    throw file_error(folder, "an adapter (LoRA), not a model; merge it into its base model ",
                     base.is_string() ? base.get<std::string>() + " " : "",
                     "first (peft: merge_and_unload()) and give the merged folder");
  }
  if (is_there(folder / "params.json")) {
    throw file_error(folder,
                     "params.json and no config.json: the author's own format (Mistral, Llama); take the upload ",
                     "for transformers, which has a config.json");
  }
  if (const std::string snapshot = folder_with_config(folder / "snapshots"); !snapshot.empty()) {
    throw file_error(folder,
                     "a folder of the Hub's cache; give the model in it: ", (folder / "snapshots" / snapshot).string());
  }
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (!entry->path().filename().string().starts_with("models--")) continue;
    throw file_error(folder, "a cache of the Hub; give the folder of one model in it: ",
                     (folder / "models--ORG--NAME" / "snapshots" / "REVISION").string());
  }
  const std::string inner = folder_with_config(folder);
  throw file_error(folder, "no config.json in it, so it is not a Hugging Face model folder",
                   inner.empty() ? "" : "; its subfolder " + inner + " has one");
}

WeightFiles find_weights(const fs::path& folder) {
  WeightFiles weights;
  const bool has_single = is_there(folder / kSingleName);
  if (is_there(folder / kIndexName)) {
    try {
      weights.index = read_index(folder);
    } catch (const InputError& error) {
      if (!has_single) throw;
      weights.warnings.push_back(cat(error.what(), "; ", kSingleName, " is read"));
    }
  }
  for (const auto& [tensor, shard] : weights.index) weights.names.insert(shard);
  if (has_single && weights.names.count(kSingleName) == 0) {
    for (std::string& text : others_beside_single(folder, weights.index)) weights.warnings.push_back(std::move(text));
    weights.index.clear();
    weights.names = {kSingleName};
  } else if (weights.names.empty()) {
    weights.names.insert(single_weight_file(folder));
  }
  refuse_missing_shards(folder, weights.index);
  if (is_there(folder / "adapter_config.json")) {
    weights.warnings.push_back(cat(folder.string(),
                                   ": adapter_config.json belongs to an adapter, which is not applied to the weights; "
                                   "merge it into them first if it should be"));
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
    if (relative == "config.json" || relative == "quantize_config.json" || relative == kModelOptName ||
        is_weight_file(relative) || is_weight_index(relative)) {
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
