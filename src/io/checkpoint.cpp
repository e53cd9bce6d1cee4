#include "io/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/file.h"
#include "io/quantization_entry.h"
#include "io/source_format.h"
#include "ops/copies.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

bool has_quantized(const FolderTensors& tensors) {
  const std::vector<const StoredTensor*> all = tensors.all();
  return std::any_of(all.begin(), all.end(), [](const StoredTensor* tensor) { return is_of_quantized(*tensor); });
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
  Json config;
  QuantizationEntry quantization;  // of weights that do not look plain
  std::mutex mutex;
  std::map<std::pair<std::string, std::string>, bool> equal;  // pairs of tensors that were compared
};

void Checkpoint::Delete::operator()(Configs* configs) const noexcept { delete configs; }
void Checkpoint::Delete::operator()(Meter* meter) const noexcept { delete meter; }

const Json& Checkpoint::config() const { return configs_->config; }
const Json& Checkpoint::quantization_config() const { return configs_->quantization.config; }

Checkpoint::Checkpoint(fs::path folder, int64_t max_read_rate)
    : folder_(std::move(folder)), configs_(new Configs), meter_(new Meter) {
  Json& config = configs_->config;
  meter_->rate = max_read_rate;
  while (folder_.has_relative_path() && folder_.filename().empty()) folder_ = folder_.parent_path();  // "model/"
  check_model_folder(folder_);
  config = read_json(folder_ / "config.json");
  if (!config.is_object()) throw file_error(folder_ / "config.json", "not a JSON object");
  QuantizationEntry entry = read_quantization_entry(config, folder_);

  const WeightFiles weights = find_weights(folder_);
  warnings_ = weights.warnings;
  tensors_ = std::make_unique<FolderTensors>(folder_, weights, warnings_);
  if (entry.config.is_null()) return;
  if (!has_quantized(*tensors_)) {
    warnings_.push_back(cat(folder_.string(), ": its quantization_config claims ", entry.method(),
                            ", but no weight is stored that way: it is read as a model that is not quantized"));
    return;
  }
  const SourceFormat* source = source_format_of(entry);
  if (source != nullptr && !source->on_request)
    source->decode(entry, *tensors_, false);
  else
    configs_->quantization = std::move(entry);
}

bool Checkpoint::can_dequantize() const { return source_format_of(configs_->quantization) != nullptr; }

void Checkpoint::dequantize(bool transposed) {
  QuantizationEntry& entry = configs_->quantization;
  const SourceFormat* source = source_format_of(entry);
  if (source == nullptr)
    throw UnsupportedError(cat(folder_.string(), ": weights quantized with '", entry.method(), "' are not read"));
  source->decode(entry, *tensors_, transposed);
  for (const StoredTensor* tensor : tensors_->all()) {
    if (!is_of_quantized(*tensor)) continue;
    throw UnsupportedError(cat(folder_.string(), ": tensor '", tensor->name, "' ", tensor->dtype, " ",
                               shape_string(tensor->shape), " is of no weight that is read as ", source->name),
                           {.option = {}, .file = folder_.string(), .tensor = tensor->name});
  }
  entry.config = nullptr;
}

const StoredTensor& Checkpoint::tensor(std::string_view name, const std::vector<int64_t>& shape) const {
  const StoredTensor& found = tensor(name);
  if (found.shape != shape) {
    throw tensor_error(folder_, std::string(name), "tensor '", name, "' has shape ", shape_string(found.shape),
                       ", but config.json implies ", shape_string(shape));
  }
  return found;
}

void Checkpoint::read(const StoredTensor& tensor, size_t first, size_t bytes, void* to) const {
  const FolderTensors::Place& place = tensors_->at(tensor.name);
  if (place.decoded != nullptr) {
    const size_t size = size_of(*parse_safetensors_dtype(tensor.dtype));
    meter_->count(place.decoded->read(first / size, bytes / size, to));
    return;
  }
  // Read in pieces, so that a limited rate is even.
  constexpr size_t kPiece = size_t{4} << 20;
  for (size_t done = 0; done < bytes;) {
    const size_t piece = std::min(kPiece, bytes - done);
    place.stored.read(first + done, piece, static_cast<std::byte*>(to) + done);
    meter_->count(piece);
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
  for (const auto& file : tensors_->files()) paths.push_back(file->path());
  return paths;
}

size_t Checkpoint::side_bytes() const {
  size_t total = 0;
  for (const fs::path& file : side_files()) total += file_size(open_regular(folder_ / file), folder_ / file);
  return total;
}

size_t Checkpoint::bytes() const {
  size_t total = 0;
  for (const auto& file : tensors_->files()) {
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
