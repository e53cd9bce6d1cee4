#include "io/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "base/edit_distance.h"
#include "base/error.h"
#include "io/file.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// Sorted keys for fast lookup: an index names up to hundreds of thousands of tensors.
using IndexJson = nlohmann::json;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";
// Deeper than any model's configuration; bounds the recursion over parsed values.
constexpr int kMaxJsonDepth = 100;

// The type of the file at `path`, links followed; file_type::not_found if there is none.
fs::file_type type_of(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::none) throw cannot(path, "look at it", error.value());
  return type;
}

bool is_there(const fs::path& path) { return type_of(path) != fs::file_type::not_found; }

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

std::string read_text(const fs::path& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) throw cannot(path, "read it", errno);
  std::string text;
  std::vector<char> buffer(1 << 20);
  for (;;) {
    const ssize_t count = read(*file, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw cannot(path, "read it", errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(count));
  }
}

template <typename AnyJson>
AnyJson parse_json_file(const fs::path& path) {
  const std::string text = read_text(path);
  const auto watch = [&](int depth, typename AnyJson::parse_event_t /*event*/, AnyJson& /*value*/) {
    if (depth > kMaxJsonDepth) throw file_error(path, "nested deeper than ", kMaxJsonDepth, " levels");
    return true;
  };
  try {
    return AnyJson::parse(text, watch);
  } catch (const typename AnyJson::parse_error& error) {
    const std::string_view seen = std::string_view(text).substr(0, error.byte);
    const auto line = std::count(seen.begin(), seen.end(), '\n') + 1;
    throw file_error(path, "not valid JSON at line ", line, ", column ", seen.size() - (seen.rfind('\n') + 1));
  } catch (const typename AnyJson::exception&) {
    throw file_error(path, "holds a number that is too large");
  }
}

// The weight_map of an index: tensor name to shard. Checks that every shard exists in the folder.
std::map<std::string, fs::path> read_index(const fs::path& folder) {
  const fs::path path = folder / kIndexName;
  const IndexJson index = parse_json_file<IndexJson>(path);
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

// Absolute path with links resolved as far as it exists, without a trailing slash.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path real = fs::weakly_canonical(fs::absolute(path, error), error);
  if (error) throw cannot(path, "find it", error.value());
  return real.filename().empty() ? real.parent_path() : real;
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

fs::path temporary_of(const fs::path& output) { return output.string() + ".partial-" + std::to_string(getpid()); }
fs::path old_of(const fs::path& output) { return output.string() + ".old-" + std::to_string(getpid()); }

// Throws for an output that must not be written; `output` is the user's spelling, `target` and `source` are resolved.
void check_output(const fs::path& output, const fs::path& target, const fs::path& source, bool overwrite) {
  if (is_inside(target, source) || is_inside(source, target)) {
    throw file_error(output, "the output must be another folder than the model ", source.string(),
                     ", neither inside nor around it");
  }
  const fs::file_type type = type_of(target);
  if (type == fs::file_type::not_found) {
    std::error_code error;
    if (fs::is_symlink(target, error)) throw file_error(output, "a link to a folder that is missing");
    return;
  }
  if (!overwrite) throw file_error(output, "exists already; pass `overwrite` to replace it, or choose another folder");
  std::error_code error;
  const bool empty = type == fs::file_type::directory && fs::is_empty(target, error);
  if (error) throw cannot(output, "list it", error.value());
  if (type != fs::file_type::directory || (!empty && !is_there(target / "config.json"))) {
    throw file_error(output, "is not a model folder, so `overwrite` does not replace it; choose another folder");
  }
}

// The tensors of each shard, in order: starts a new shard where the next tensor would exceed the limit.
std::vector<std::vector<TensorSpec>> cut_shards(std::vector<TensorSpec> tensors, size_t max_shard_bytes) {
  std::vector<std::vector<TensorSpec>> shards(1);
  size_t shard_bytes = 0;
  for (TensorSpec& tensor : tensors) {
    const size_t bytes = tensor.bytes();
    if (!shards.back().empty() && (shard_bytes > max_shard_bytes || bytes > max_shard_bytes - shard_bytes)) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string shard_name(size_t shard, size_t count) {
  if (count == 1) return kSingleName;
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
  return name;
}

bool is_fp8_method(const Json& quantization) {
  if (quantization.is_null()) return false;
  const auto method = quantization.find("quant_method");
  return method != quantization.end() && (*method == "fp8" || *method == "fbgemm_fp8");
}

// The weight_block_size of a quantization_config; {0, 0} if it has none.
Fp8Block fp8_block(const Json& quantization, const fs::path& folder) {
  if (const auto format = quantization.find("fmt"); format != quantization.end() && *format != "e4m3") {
    throw UnsupportedError(
        cat(folder.string(), ": its quantization_config says fmt ", format->dump(), "; FP8 weights in e4m3 are read"));
  }
  const auto size = quantization.find("weight_block_size");
  if (size == quantization.end() || size->is_null()) return {};
  const auto is_positive = [](const Json& value) { return value.is_number_integer() && value.get<int64_t>() > 0; };
  if (!size->is_array() || size->size() != 2 || !std::all_of(size->begin(), size->end(), is_positive)) {
    throw file_error(folder, "its quantization_config says weight_block_size ", size->dump(),
                     "; two positive numbers are needed");
  }
  return {(*size)[0], (*size)[1]};
}

}  // namespace

Json read_json(const fs::path& path) { return parse_json_file<Json>(path); }

struct Checkpoint::Meter {
  using Clock = std::chrono::steady_clock;

  int64_t rate = 0;  // bytes a second; 0: no limit
  std::atomic<size_t> bytes = 0;
  std::mutex mutex;
  Clock::time_point free_at = Clock::now();  // when everything read so far would be done at that rate

  void count(size_t read) {
    bytes += read;
    if (rate <= 0) return;
    std::unique_lock lock(mutex);
    const std::chrono::duration<double> takes(static_cast<double>(read) / static_cast<double>(rate));
    free_at = std::max(free_at, Clock::now()) + std::chrono::duration_cast<Clock::duration>(takes);
    const Clock::time_point until = free_at;
    lock.unlock();
    std::this_thread::sleep_until(until);
  }
};

struct Checkpoint::Configs {
  Json config, quantization;
};

void Checkpoint::Delete::operator()(Configs* configs) const noexcept { delete configs; }
void Checkpoint::Delete::operator()(Meter* meter) const noexcept { delete meter; }

const Json& Checkpoint::config() const { return configs_->config; }
const Json& Checkpoint::quantization_config() const { return configs_->quantization; }

Checkpoint::Checkpoint(fs::path folder, int64_t max_read_rate)
    : folder_(std::move(folder)), configs_(new Configs), meter_(new Meter) {
  auto& [config, quantization] = *configs_;
  meter_->rate = max_read_rate;
  while (folder_.has_relative_path() && folder_.filename().empty()) folder_ = folder_.parent_path();  // "model/"
  if (!is_there(folder_)) throw file_error(folder_, "no such folder");
  if (type_of(folder_) != fs::file_type::directory)
    throw file_error(folder_, "not a folder; give the folder that holds config.json");
  if (!is_there(folder_ / "config.json"))
    throw file_error(folder_, "no config.json in it, so it is not a Hugging Face model folder");
  config = read_json(folder_ / "config.json");
  if (!config.is_object()) throw file_error(folder_ / "config.json", "not a JSON object");
  if (const auto found = config.find("quantization_config"); found != config.end()) quantization = *found;
  if (quantization.is_null() && is_there(folder_ / "quantize_config.json"))
    quantization = read_json(folder_ / "quantize_config.json");
  if (!quantization.is_null() && !quantization.is_object())
    throw file_error(folder_, "its quantization_config is not a JSON object");

  std::map<std::string, fs::path> index;
  std::set<fs::path> names;
  if (is_there(folder_ / kIndexName)) {
    index = read_index(folder_);
    for (const auto& [tensor, shard] : index) names.insert(shard);
  } else {
    names.insert(single_weight_file(folder_));
  }
  for (const fs::path& name : names) {
    files_.push_back(std::make_unique<SafetensorsFile>(folder_ / name));
    for (const StoredTensor& tensor : files_.back()->tensors()) {
      const auto [other, added] = by_name_.try_emplace(tensor.name, Place{files_.back().get(), &tensor});
      if (!added)
        throw InputError(cat("tensor '", tensor.name, "' is both in ", other->second.file->path().string(), " and in ",
                             files_.back()->path().string()));
    }
  }
  for (const auto& [name, shard] : index) {
    const auto place = by_name_.find(name);
    if (place == by_name_.end() || place->second.file->path() != folder_ / shard) {
      throw tensor_error(folder_ / kIndexName, name, "tensor '", name, "' is said to be in ", shard.string(),
                         ", but it is not there");
    }
  }
  if (is_fp8_method(quantization)) {
    const Fp8Block block = fp8_block(quantization, folder_);
    quantization = nullptr;
    find_fp8_weights(block);
  }
}

void Checkpoint::find_fp8_weights(Fp8Block block) {
  const auto is_here = [&](const std::string& name) { return has(name); };
  std::vector<std::string> unseen;
  for (const auto& file : files_) {
    for (const StoredTensor& tensor : file->tensors()) {
      if (tensor.dtype != "F8_E4M3") continue;
      const std::string scales = Fp8Weight::scales_name(tensor.name, is_here);
      if (scales.empty()) {
        throw tensor_error(file->path(), tensor.name, "the FP8 weight '", tensor.name, "' has no scales '", tensor.name,
                           "_scale_inv': the download is not complete");
      }
      const Place& place = by_name_.at(scales);
      fp8_weights_.push_back(std::make_unique<Fp8Weight>(*file, tensor, *place.file, *place.tensor, block));
      unseen.push_back(scales);
      const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
      for (const char* part : {".input_scale", ".input_scale_ub", ".activation_scale"}) unseen.push_back(module + part);
    }
  }
  for (const auto& weight : fp8_weights_) {
    Place& place = by_name_.at(weight->stored().name);
    place.tensor = &weight->as_bf16();
    place.fp8 = weight.get();
  }
  for (const std::string& name : unseen) by_name_.erase(name);
}

const StoredTensor& Checkpoint::in_file(const StoredTensor& tensor) const {
  const Place& place = by_name_.at(tensor.name);
  return place.fp8 != nullptr ? place.fp8->stored() : *place.tensor;
}

const StoredTensor& Checkpoint::tensor(std::string_view name) const {
  if (const auto found = by_name_.find(std::string(name)); found != by_name_.end()) return *found->second.tensor;
  std::vector<std::pair<int64_t, std::string>> near;
  for (const auto& entry : by_name_) near.emplace_back(edit_distance(name, entry.first), entry.first);
  std::sort(near.begin(), near.end());
  std::string names;
  for (size_t i = 0; i < near.size() && i < 3; ++i) names += cat(i == 0 ? "" : ", ", near[i].second);
  throw tensor_error(folder_, std::string(name), "no tensor '", name,
                     "', which config.json implies; nearest: ", names.empty() ? "none" : names);
}

const StoredTensor& Checkpoint::tensor(std::string_view name, const std::vector<int64_t>& shape) const {
  const StoredTensor& found = tensor(name);
  if (found.shape != shape) {
    throw tensor_error(folder_, std::string(name), "tensor '", name, "' has shape ", shape_string(found.shape),
                       ", but config.json implies ", shape_string(shape));
  }
  return found;
}

std::vector<const StoredTensor*> Checkpoint::tensors() const {
  std::vector<const StoredTensor*> all;
  for (const auto& file : files_) {
    for (const StoredTensor& tensor : file->tensors()) {
      if (const auto seen = by_name_.find(tensor.name); seen != by_name_.end()) all.push_back(seen->second.tensor);
    }
  }
  return all;
}

void Checkpoint::read(const StoredTensor& tensor, size_t first, size_t bytes, void* to) const {
  // Read in pieces, so that a limited rate is even.
  constexpr size_t kPiece = size_t{4} << 20;
  const Place& place = by_name_.at(tensor.name);
  for (size_t done = 0; done < bytes;) {
    const size_t piece = std::min(kPiece, bytes - done);
    std::byte* const at = static_cast<std::byte*>(to) + done;
    if (place.fp8 != nullptr) {
      meter_->count(place.fp8->read((first + done) / 2, piece / 2, reinterpret_cast<uint16_t*>(at)));
    } else {
      place.file->read(tensor, first + done, piece, at);
      meter_->count(piece);
    }
    done += piece;
  }
}

Matrix Checkpoint::load(const StoredTensor& tensor, Memory& memory) const {
  const ConstMatrixView like = tensor.matrix();
  Matrix matrix(memory, like.dtype, like.rows, like.cols);
  read(tensor, 0, tensor.bytes, matrix.view().data);
  return matrix;
}

size_t Checkpoint::bytes_read() const { return meter_->bytes; }

std::vector<fs::path> Checkpoint::side_files() const {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
    const fs::path relative = entry->path().lexically_relative(folder_);  // a link keeps its own name
    if (relative.filename().string().starts_with(".") || relative == "original") {
      entry.disable_recursion_pending();
      continue;
    }
    if (relative == "config.json" || relative == "quantize_config.json" || is_weight_file(relative) ||
        is_weight_index(relative)) {
      continue;
    }
    const fs::file_type type = type_of(entry->path());
    if (type == fs::file_type::not_found)
      throw file_error(entry->path(), "a link to a file that is missing: the download is not complete");
    if (type == fs::file_type::regular) files.push_back(relative);
  }
  if (error) throw cannot(folder_, "list it", error.value());
  std::sort(files.begin(), files.end());
  return files;
}

size_t Checkpoint::bytes() const {
  size_t total = 0;
  for (const auto& file : files_) {
    for (const StoredTensor& tensor : file->tensors()) total += tensor.bytes;
  }
  return total;
}

CheckpointWriter::CheckpointWriter(const fs::path& source, fs::path output, bool overwrite,
                                   std::vector<TensorSpec> tensors, size_t max_shard_bytes)
    : overwrite_(overwrite) {
  if (output.empty()) throw InputError("no output folder given");
  output_ = resolved(output);
  temporary_ = temporary_of(output_);
  old_ = old_of(output_);
  check_output(output, output_, resolved(source), overwrite);
  if (is_there(temporary_)) throw file_error(temporary_, "left by a run that was killed; remove it");
  if (is_there(old_)) {
    throw file_error(old_, "the output that a run was replacing when it was killed; move it back to ", output.string(),
                     " or remove it");
  }

  std::vector<std::vector<TensorSpec>> layout = cut_shards(std::move(tensors), max_shard_bytes);
  for (const auto& shard : layout) output_bytes_ += SafetensorsWriter::file_size(shard);
  fs::path existing = output_.parent_path();
  for (; !is_there(existing); existing = existing.parent_path())
    created_parents_.insert(created_parents_.begin(), existing);
  if (const std::optional<uint64_t> room = free_bytes(existing); room && *room < output_bytes_) {
    throw file_error(output, "the output needs ", output_bytes_, " bytes, but its disk has ", *room, " free");
  }

  try {
    std::error_code error;
    for (const fs::path& parent : created_parents_) {
      if (!fs::create_directory(parent, error) && error) throw cannot(parent, "create it", error.value());
    }
    if (!fs::create_directory(temporary_, error)) throw cannot(output, "create it", error ? error.value() : EEXIST);
    IndexJson weight_map = IndexJson::object();
    size_t total = 0;
    for (size_t i = 0; i < layout.size(); ++i) {
      const std::string name = shard_name(i, layout.size());
      for (const TensorSpec& tensor : layout[i]) {
        if (!shard_of_.emplace(tensor.name, i).second)
          throw Error(cat("tensor '", tensor.name, "' is to be written twice"));
        weight_map[tensor.name] = name;
        total += tensor.bytes();
      }
      shards_.emplace_back(temporary_ / name, std::move(layout[i]));
    }
    if (shards_.size() > 1) {
      const IndexJson index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
      index_ = index.dump(2) + "\n";
    }
  } catch (...) {
    abandon();
    throw;
  }
}

CheckpointWriter::~CheckpointWriter() {
  if (!committed_) abandon();
}

void CheckpointWriter::abandon() noexcept {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  // Innermost first; a folder that others have put files in stays.
  std::for_each(created_parents_.rbegin(), created_parents_.rend(),
                [&](const fs::path& parent) { fs::remove(parent, ignored); });
}

void CheckpointWriter::remove_partial(const fs::path& output) noexcept {
  try {
    std::error_code ignored;
    // Repeated, as a thread that still writes may add a file while the folder is removed.
    for (int attempt = 0; attempt < 3; ++attempt) fs::remove_all(temporary_of(resolved(output)), ignored);
  } catch (...) {  // no memory or no such path: nothing can be removed
  }
}

size_t CheckpointWriter::output_bytes(std::vector<TensorSpec> tensors, size_t max_shard_bytes) {
  size_t total = 0;
  for (const auto& shard : cut_shards(std::move(tensors), max_shard_bytes))
    total += SafetensorsWriter::file_size(shard);
  return total;
}

SafetensorsWriter& CheckpointWriter::shard_of(std::string_view tensor) {
  const auto shard = shard_of_.find(std::string(tensor));
  if (shard == shard_of_.end()) throw Error(cat("tensor '", tensor, "' is not in the output's layout"));
  return shards_[shard->second];
}

void CheckpointWriter::write(std::string_view tensor, const void* data, size_t bytes) {
  shard_of(tensor).write(tensor, data, bytes);
}

void CheckpointWriter::write_part(std::string_view tensor, size_t first, const void* data, size_t bytes) {
  shard_of(tensor).write_part(tensor, first, data, bytes);
}

fs::path CheckpointWriter::create(const fs::path& relative) const {
  fs::path path = temporary_ / relative;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) throw cannot(path.parent_path(), "create it", error.value());
  return path;
}

void CheckpointWriter::write_file(const fs::path& relative, std::string_view text) {
  const fs::path path = create(relative);
  const Descriptor file(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666));
  if (!file) throw write_failure(path, errno, text.size());
  write_all(*file, path, text.data(), text.size(), 0);
  if (fsync(*file) != 0) throw write_failure(path, errno, text.size());
}

void CheckpointWriter::copy_file(const fs::path& from, const fs::path& relative) {
  const fs::path path = create(relative);
  const Descriptor source(open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!source) throw cannot(from, "read it", errno);
  const Descriptor file(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666));
  if (!file) throw write_failure(path, errno, 0);
  std::vector<char> buffer(1 << 20);
  for (size_t done = 0;;) {
    const ssize_t count = read(*source, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw cannot(from, "read it", errno);
    if (count == 0) break;
    write_all(*file, path, buffer.data(), static_cast<size_t>(count), done);
    done += static_cast<size_t>(count);
  }
  if (fsync(*file) != 0) throw write_failure(path, errno, 0);
}

void CheckpointWriter::commit() {
  for (SafetensorsWriter& shard : shards_) shard.finish();
  if (!index_.empty()) write_file(kIndexName, index_);
  std::error_code error;
  for (fs::recursive_directory_iterator entry(temporary_, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->is_directory()) sync_folder(entry->path());
  }
  sync_folder(temporary_);
  const bool replaces = is_there(output_);
  if (replaces && !overwrite_) throw file_error(output_, "was created during the run; pass `overwrite` to replace it");
  if (replaces) fs::rename(output_, old_, error);
  if (error) throw cannot(output_, "move the old output aside", error.value());
  fs::rename(temporary_, output_, error);
  if (error) {
    const int reason = error.value();
    if (replaces) fs::rename(old_, output_, error);
    throw cannot(output_, "put the finished folder in place", reason);
  }
  committed_ = true;
  sync_folder(output_.parent_path());
  if (replaces) fs::remove_all(old_, error);
}

void refuse_nonfinite(const Checkpoint& checkpoint, const StoredTensor& tensor, int64_t count) {
  if (count == 0) return;
  throw tensor_error(checkpoint.folder(), tensor.name, "NaN or infinity at ", count, " places of tensor '", tensor.name,
                     "' ", shape_string(tensor.shape), ": the checkpoint is damaged; download or export it again");
}

}  // namespace gptq
