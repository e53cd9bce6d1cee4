#include "io/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <numeric>
#include <set>
#include <sstream>
#include <utility>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";

// Weights in other formats: they would be stale beside quantized ones, so they are not carried over.
bool is_other_weight_file(const fs::path& relative) {
  const std::string name = relative.filename().string(), extension = relative.extension().string();
  return extension == ".safetensors" || extension == ".bin" || extension == ".pt" || extension == ".pth" ||
         extension == ".gguf" || extension == ".h5" || extension == ".msgpack" || extension == ".onnx" ||
         name.ends_with(".index.json");
}

int64_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<int64_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = static_cast<int64_t>(i) + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const int64_t substitution = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substitution});
    }
  }
  return row.back();
}

// The safetensors files of a folder, relative; checked against the index where there is one.
std::vector<std::string> weight_files(const fs::path& folder, const Json& index) {
  std::set<std::string> files;
  if (!index.is_null()) {
    for (const auto& [tensor, file] : index.at("weight_map").items()) {
      const fs::path shard = file.get<std::string>();
      if (shard.is_absolute() || shard.lexically_normal().string().starts_with("..")) {
        throw InputError(cat((folder / kIndexName).string(), ": tensor '", tensor, "' is said to be in ",
                             shard.string(), ", outside the folder"));
      }
      if (!fs::exists(folder / shard)) {
        throw InputError(cat((folder / kIndexName).string(), ": tensor '", tensor, "' is said to be in ",
                             shard.string(), ", which is missing: the download is not complete"));
      }
      files.insert(shard.string());
    }
    if (!files.empty()) return {files.begin(), files.end()};
  }
  if (fs::exists(folder / kSingleName)) return {kSingleName};
  std::string others;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() == ".safetensors") files.insert(name);
    if (is_other_weight_file(name)) others = name;
  }
  if (files.size() == 1) return {files.begin(), files.end()};
  if (files.size() > 1)
    throw InputError(
        cat(folder.string(), ": several safetensors files and no ", kIndexName, " that says what belongs together"));
  if (!others.empty()) {
    throw InputError(cat(folder.string(), ": its weights are in ", others,
                         "; convert them to safetensors: python -c \"from transformers import ",
                         "AutoModelForCausalLM as A; A.from_pretrained('", folder.string(),
                         "').save_pretrained('NEW_FOLDER')\""));
  }
  throw InputError(cat(folder.string(), ": no ", kSingleName, " and no ", kIndexName, " in this folder"));
}

InputError cannot(const fs::path& path, const char* what, int error) {
  return InputError(cat(path.string(), ": cannot ", what, " (", std::strerror(error), ")"));
}

void sync_path(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool done = descriptor >= 0 && fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) close(descriptor);
  if (!done) throw cannot(path, "write it to disk", error);
}

fs::path resolved(const fs::path& path) { return fs::weakly_canonical(fs::absolute(path)); }

bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto [folder_end, unused] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return folder_end == folder.end();
}

fs::path temporary_of(const fs::path& output) { return output.string() + ".partial-" + std::to_string(getpid()); }

}  // namespace

Json read_json(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw cannot(path, "read it", errno);
  std::ostringstream text;
  text << file.rdbuf();
  try {
    return Json::parse(text.str());
  } catch (const nlohmann::json::parse_error& error) {
    const std::string seen = text.str().substr(0, error.byte);
    const auto line = std::count(seen.begin(), seen.end(), '\n') + 1;
    throw InputError(
        cat(path.string(), ": no valid JSON at line ", line, ", column ", seen.size() - (seen.rfind('\n') + 1)));
  }
}

Checkpoint::Checkpoint(fs::path folder) : folder_(std::move(folder)) {
  while (folder_.has_relative_path() && folder_.filename().empty()) folder_ = folder_.parent_path();  // "model/"
  std::error_code error;
  if (!fs::exists(folder_, error)) throw InputError(cat(folder_.string(), ": no such folder"));
  if (!fs::is_directory(folder_, error))
    throw InputError(cat(folder_.string(), ": not a folder; give the folder that holds config.json"));
  if (!fs::exists(folder_ / "config.json", error))
    throw InputError(cat(folder_.string(), ": no config.json in it, so it is no Hugging Face model folder"));
  config_ = read_json(folder_ / "config.json");
  if (!config_.is_object()) throw InputError(cat((folder_ / "config.json").string(), ": not a JSON object"));
  if (const auto found = config_.find("quantization_config"); found != config_.end()) quantization_config_ = *found;
  if (quantization_config_.is_null() && fs::exists(folder_ / "quantize_config.json"))
    quantization_config_ = read_json(folder_ / "quantize_config.json");

  Json index;
  if (fs::exists(folder_ / kIndexName)) {
    index = read_json(folder_ / kIndexName);
    const auto map = index.is_object() ? index.find("weight_map") : index.end();
    const bool strings = index.is_object() && map != index.end() && map->is_object() &&
                         std::all_of(map->begin(), map->end(), [](const Json& file) { return file.is_string(); });
    if (!strings) throw InputError(cat((folder_ / kIndexName).string(), ": no weight_map of tensor names to files"));
  }
  for (const std::string& name : weight_files(folder_, index)) {
    files_.push_back(std::make_unique<SafetensorsFile>(folder_ / name));
    for (const StoredTensor& tensor : files_.back()->tensors()) {
      const auto [other, added] = by_name_.try_emplace(tensor.name, Place{files_.back().get(), &tensor});
      if (!added)
        throw InputError(cat("tensor '", tensor.name, "' is both in ", other->second.file->path().string(), " and in ",
                             files_.back()->path().string()));
    }
  }
  if (index.is_null()) return;
  for (const auto& [name, file] : index.at("weight_map").items()) {
    const auto place = by_name_.find(name);
    if (place == by_name_.end() || place->second.file->path() != folder_ / file.get<std::string>()) {
      throw InputError(cat((folder_ / kIndexName).string(), ": tensor '", name, "' is said to be in ",
                           file.get<std::string>(), ", but it is not there"));
    }
  }
}

const StoredTensor& Checkpoint::tensor(std::string_view name) const {
  if (const auto found = by_name_.find(std::string(name)); found != by_name_.end()) return *found->second.tensor;
  std::vector<std::pair<int64_t, std::string>> near;
  for (const auto& entry : by_name_) near.emplace_back(edit_distance(name, entry.first), entry.first);
  std::sort(near.begin(), near.end());
  std::string names;
  for (size_t i = 0; i < near.size() && i < 3; ++i) names += cat(i == 0 ? "" : ", ", near[i].second);
  throw InputError(cat(folder_.string(), ": no tensor '", name,
                       "', which config.json implies; nearest: ", names.empty() ? "none" : names));
}

const StoredTensor& Checkpoint::tensor(std::string_view name, const std::vector<int64_t>& shape) const {
  const StoredTensor& found = tensor(name);
  if (found.shape != shape) {
    throw InputError(cat(folder_.string(), ": tensor '", name, "' has shape ", shape_string(found.shape),
                         ", but config.json implies ", shape_string(shape)));
  }
  return found;
}

std::vector<const StoredTensor*> Checkpoint::tensors() const {
  std::vector<const StoredTensor*> all;
  for (const auto& file : files_) {
    for (const StoredTensor& tensor : file->tensors()) all.push_back(&tensor);
  }
  return all;
}

void Checkpoint::forget(const StoredTensor& tensor) const {
  if (const auto place = by_name_.find(tensor.name); place != by_name_.end()) place->second.file->forget(tensor);
}

std::vector<fs::path> Checkpoint::side_files() const {
  std::vector<fs::path> files;
  for (auto entry = fs::recursive_directory_iterator(folder_); entry != fs::recursive_directory_iterator(); ++entry) {
    const fs::path relative = fs::relative(entry->path(), folder_);
    const bool hidden = relative.filename().string().starts_with(".");
    if (entry->is_directory() && hidden) entry.disable_recursion_pending();
    const bool config = relative == "config.json" || relative == "quantize_config.json";
    if (entry->is_regular_file() && !hidden && !config && !is_other_weight_file(relative)) files.push_back(relative);
  }
  std::sort(files.begin(), files.end());
  return files;
}

size_t Checkpoint::bytes() const {
  size_t total = 0;
  for (const StoredTensor* tensor : tensors()) total += tensor->bytes;
  return total;
}

CheckpointWriter::CheckpointWriter(const fs::path& source, fs::path output, bool overwrite,
                                   std::vector<TensorSpec> tensors, size_t max_shard_bytes)
    : overwrite_(overwrite) {
  if (output.empty()) throw InputError("no output folder given");
  output_ = resolved(output);
  if (output_.filename().empty()) output_ = output_.parent_path();
  const fs::path from = resolved(source);
  if (is_inside(output_, from) || is_inside(from, output_)) {
    throw InputError(
        cat(output.string(), ": the output must lie outside the input ", source.string(), ", and not hold it"));
  }
  if (fs::exists(output_)) {
    if (!overwrite)
      throw InputError(
          cat(output.string(), ": exists already; pass --overwrite to replace it, or choose another folder"));
    if (!fs::is_directory(output_) || (!fs::is_empty(output_) && !fs::exists(output_ / "config.json"))) {
      throw InputError(cat(output.string(), ": is no model folder, so --overwrite does not replace it"));
    }
  }

  // Shards: tensors in their order, a new one where the next would exceed the limit.
  std::vector<std::vector<TensorSpec>> layout(1);
  size_t shard_bytes = 0, total = 0;
  for (TensorSpec& tensor : tensors) {
    const size_t bytes = tensor.bytes();
    if (shard_bytes > 0 && shard_bytes + bytes > max_shard_bytes) {
      layout.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    total += bytes;
    layout.back().push_back(std::move(tensor));
  }
  for (const auto& shard : layout) output_bytes_ += SafetensorsWriter::file_size(shard);

  std::error_code error;
  fs::create_directories(output_.parent_path(), error);
  if (error) throw cannot(output_.parent_path(), "create it", error.value());
  struct statvfs disk {};
  if (statvfs(output_.parent_path().c_str(), &disk) == 0) {
    const uint64_t free_bytes = uint64_t{disk.f_bavail} * disk.f_frsize;
    if (free_bytes < output_bytes_) {
      throw InputError(
          cat(output.string(), ": the output needs ", output_bytes_, " bytes, but its disk has ", free_bytes, " free"));
    }
  }
  temporary_ = temporary_of(output_);
  if (!fs::create_directory(temporary_, error)) throw cannot(output_, "create it", error ? error.value() : EEXIST);
  try {
    Json weight_map = Json::object();
    for (size_t i = 0; i < layout.size(); ++i) {
      char numbered[64];
      std::snprintf(numbered, sizeof numbered, "model-%05zu-of-%05zu.safetensors", i + 1, layout.size());
      const std::string name = layout.size() == 1 ? kSingleName : numbered;
      for (const TensorSpec& tensor : layout[i]) {
        shard_of_[tensor.name] = i;
        weight_map[tensor.name] = name;
      }
      shards_.emplace_back(temporary_ / name, std::move(layout[i]));
    }
    if (shards_.size() > 1) {
      const std::map<std::string, Json> sorted = weight_map.get<std::map<std::string, Json>>();
      index_ = Json{{"metadata", {{"total_size", total}}}, {"weight_map", sorted}}.dump(2) + "\n";
    }
  } catch (...) {
    fs::remove_all(temporary_, error);
    throw;
  }
}

CheckpointWriter::~CheckpointWriter() {
  if (!committed_) remove_partial(output_);
}

void CheckpointWriter::remove_partial(const fs::path& output) noexcept {
  std::error_code ignored;
  const fs::path temporary = temporary_of(fs::weakly_canonical(fs::absolute(output, ignored), ignored));
  fs::remove_all(temporary, ignored);
}

void CheckpointWriter::write(std::string_view tensor, const void* data, size_t bytes) {
  const auto shard = shard_of_.find(std::string(tensor));
  if (shard == shard_of_.end()) throw Error(cat("tensor '", tensor, "' is not in the output's layout"));
  shards_[shard->second].write(tensor, data, bytes);
}

void CheckpointWriter::write_file(const fs::path& relative, std::string_view text) {
  const fs::path path = temporary_ / relative;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (!file)
    throw InputError(
        cat(path.string(), ": cannot write it (", std::strerror(errno), "): ", text.size(), " bytes are needed"));
  sync_path(path);
}

void CheckpointWriter::copy_file(const fs::path& from, const fs::path& relative) {
  const fs::path path = temporary_ / relative;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  fs::copy_file(from, path, fs::copy_options::none, error);
  if (error) {
    throw InputError(cat(path.string(), ": cannot copy ", from.string(), " (", error.message(),
                         "): ", fs::file_size(from, error), " bytes are needed"));
  }
  sync_path(path);
}

void CheckpointWriter::commit() {
  for (SafetensorsWriter& shard : shards_) shard.finish();
  if (!index_.empty()) write_file(kIndexName, index_);
  sync_path(temporary_);
  std::error_code error;
  const fs::path old = output_.string() + ".old-" + std::to_string(getpid());
  const bool replaces = fs::exists(output_);
  if (replaces && !overwrite_)
    throw InputError(cat(output_.string(), ": somebody created it meanwhile; pass --overwrite to replace it"));
  if (replaces) fs::rename(output_, old, error);
  if (!error) fs::rename(temporary_, output_, error);
  if (error) {
    const int reason = error.value();
    if (replaces && fs::exists(old)) fs::rename(old, output_, error);
    throw cannot(output_, "put the finished folder in place", reason);
  }
  committed_ = true;
  sync_path(output_.parent_path());
  if (replaces) fs::remove_all(old, error);
}

}  // namespace gptq
