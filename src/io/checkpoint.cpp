#include "io/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/edit_distance.h"
#include "base/error.h"
#include "io/file.h"
#include "io/quantization_entry.h"
#include "ops/copies.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// Whether two tensors are stored alike, bit by bit.
bool same_bytes(const SafetensorsFile& file, const StoredTensor& tensor, const SafetensorsFile& other_file,
                const StoredTensor& other) {
  if (tensor.dtype != other.dtype || tensor.shape != other.shape) return false;
  constexpr size_t kPiece = size_t{1} << 20;
  std::vector<std::byte> here(std::min(kPiece, tensor.bytes)), there(here.size());
  for (size_t first = 0; first < tensor.bytes; first += kPiece) {
    const size_t bytes = std::min(kPiece, tensor.bytes - first);
    file.read(tensor, first, bytes, here.data());
    other_file.read(other, first, bytes, there.data());
    if (!std::equal(here.begin(), here.begin() + static_cast<int64_t>(bytes), there.begin())) return false;
  }
  return true;
}

}  // namespace

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
  std::mutex mutex;
  std::map<std::pair<std::string, std::string>, bool> equal;  // pairs of tensors that were compared
};

void Checkpoint::Delete::operator()(Configs* configs) const noexcept { delete configs; }
void Checkpoint::Delete::operator()(Meter* meter) const noexcept { delete meter; }

const Json& Checkpoint::config() const { return configs_->config; }
const Json& Checkpoint::quantization_config() const { return configs_->quantization; }

Checkpoint::Checkpoint(fs::path folder, int64_t max_read_rate)
    : folder_(std::move(folder)), configs_(new Configs), meter_(new Meter) {
  Json &config = configs_->config, &quantization = configs_->quantization;
  meter_->rate = max_read_rate;
  while (folder_.has_relative_path() && folder_.filename().empty()) folder_ = folder_.parent_path();  // "model/"
  check_model_folder(folder_);
  config = read_json(folder_ / "config.json");
  if (!config.is_object()) throw file_error(folder_ / "config.json", "not a JSON object");
  QuantizationEntry entry = read_quantization_entry(config, folder_);

  const WeightFiles weights = find_weights(folder_);
  warnings_ = weights.warnings;
  open_files(weights);
  check_index(weights);
  const auto is_plain = [&] {
    const std::vector<const StoredTensor*> all = tensors();
    return std::none_of(all.begin(), all.end(), [](const auto* tensor) { return is_of_quantized(*tensor); });
  };
  if (!entry.config.is_null() && is_plain()) {
    warnings_.push_back(cat(folder_.string(), ": its quantization_config claims ", entry.method(),
                            ", but no weight is stored that way: it is read as a model that is not quantized"));
    return;
  }
  if (entry.is_fp8)
    find_fp8_weights(entry.block);
  else
    quantization = std::move(entry.config);
}

void Checkpoint::open_files(const WeightFiles& weights) {
  for (const fs::path& name : weights.names) {
    files_.push_back(std::make_unique<SafetensorsFile>(folder_ / name));
    const SafetensorsFile* file = files_.back().get();
    for (const StoredTensor& tensor : file->tensors()) {
      const auto [place, added] = by_name_.try_emplace(tensor.name, Place{file, &tensor});
      if (added) continue;
      const Place other = place->second;
      const bool same = same_bytes(*other.file, *other.tensor, *file, tensor);
      const auto named = weights.index.find(tensor.name);
      if (!same && named == weights.index.end()) {
        throw InputError(cat("tensor '", tensor.name, "' is both in ", other.file->path().string(), " and in ",
                             file->path().string(), ", with other values"));
      }
      if (named != weights.index.end() && named->second == name) place->second = {file, &tensor};
      if (same) continue;
      warnings_.push_back(cat("tensor '", tensor.name, "' is both in ", other.file->path().string(), " and in ",
                              file->path().string(), ", with other values; it is read from ", named->second.string(),
                              ", which ", kIndexName, " names"));
    }
  }
}

// Compares the index with the shards, which decide.
void Checkpoint::check_index(const WeightFiles& weights) {
  std::string misplaced;
  int64_t count = 0;
  for (const auto& [name, shard] : weights.index) {
    const auto place = by_name_.find(name);
    if (place == by_name_.end()) {
      phantoms_.emplace(name, shard);
    } else if (place->second.file->path() != folder_ / shard && count++ == 0) {
      misplaced = cat("tensor '", name, "' is not in ", shard.string(), " but in ",
                      place->second.file->path().filename().string());
    }
  }
  const std::string index = (folder_ / kIndexName).string();
  if (count > 0)
    warnings_.push_back(cat(index, " is wrong about ", count, count == 1 ? " tensor: " : " tensors: ", misplaced));
  if (phantoms_.empty()) return;
  warnings_.push_back(cat(index, " names ", phantoms_.size(), phantoms_.size() == 1 ? " tensor" : " tensors",
                          " that no file has, such as '", phantoms_.begin()->first,
                          "'; the model does without what it does not need"));
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
                           "_scale_inv' or '", tensor.name, "_scale': the download is not complete");
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
  if (const auto phantom = phantoms_.find(std::string(name)); phantom != phantoms_.end()) {
    throw tensor_error(folder_ / kIndexName, phantom->first, "tensor '", name, "' is said to be in ",
                       phantom->second.string(), ", but it is not there, and config.json implies it");
  }
  std::vector<std::pair<int64_t, std::string>> near;
  for (const auto& entry : by_name_) {
    if (entry.first.size() > 2 * name.size() + 64) continue;  // not similar, and perhaps too long to compare or print
    near.emplace_back(edit_distance(name, entry.first), entry.first);
  }
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

bool Checkpoint::equal(const StoredTensor& a, const StoredTensor& b) const {
  if (a.shape != b.shape || a.name == b.name) return a.shape == b.shape;
  const std::lock_guard lock(configs_->mutex);
  const auto [known, added] = configs_->equal.try_emplace({a.name, b.name}, true);
  if (!added) return known->second;
  constexpr int64_t kPiece = int64_t{1} << 20;
  const auto piece = [&](const StoredTensor& tensor, int64_t first, int64_t count) {
    const DType dtype = tensor.matrix().dtype;
    Matrix stored(host_memory(), dtype, 1, count), wide(host_memory(), DType::f32, 1, count);
    read(tensor, static_cast<size_t>(first) * size_of(dtype), stored.bytes(), stored.view().data);
    reference(ops::Convert{.x = stored, .y = wide});
    return wide;
  };
  const int64_t size = a.matrix().size();
  for (int64_t first = 0; first < size && known->second; first += kPiece) {
    const int64_t count = std::min(kPiece, size - first);
    const Matrix x = piece(a, first, count), y = piece(b, first, count);
    known->second = std::equal(x.row<float>(0), x.row<float>(0) + count, y.row<float>(0));
  }
  return known->second;
}

size_t Checkpoint::bytes_read() const { return meter_->bytes; }

std::vector<fs::path> Checkpoint::weight_files() const {
  std::vector<fs::path> paths;
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

size_t Checkpoint::side_bytes() const {
  size_t total = 0;
  for (const fs::path& file : side_files()) total += file_size(open_regular(folder_ / file), folder_ / file);
  return total;
}

size_t Checkpoint::bytes() const {
  size_t total = 0;
  for (const auto& file : files_) {
    for (const StoredTensor& tensor : file->tensors()) total += tensor.bytes;
  }
  return total;
}

void refuse_nonfinite(const Checkpoint& checkpoint, const StoredTensor& tensor, int64_t count) {
  if (count == 0) return;
  throw tensor_error(checkpoint.folder(), tensor.name, "NaN or infinity at ", count, " places of tensor '", tensor.name,
                     "' ", shape_string(tensor.shape), ": the checkpoint is damaged; download or export it again");
}

}  // namespace gptq
