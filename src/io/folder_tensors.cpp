#include "io/folder_tensors.h"

#include <algorithm>
#include <utility>

#include "base/edit_distance.h"
#include "base/error.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// Whether two tensors are stored alike, bit by bit.
bool same_bytes(const FileTensor& a, const FileTensor& b) {
  if (a.tensor->dtype != b.tensor->dtype || a.shape() != b.shape()) return false;
  constexpr size_t kPiece = size_t{1} << 20;
  std::vector<std::byte> here(std::min(kPiece, a.tensor->bytes)), there(here.size());
  for (size_t first = 0; first < a.tensor->bytes; first += kPiece) {
    const size_t bytes = std::min(kPiece, a.tensor->bytes - first);
    a.read(first, bytes, here.data());
    b.read(first, bytes, there.data());
    if (!std::equal(here.begin(), here.begin() + static_cast<int64_t>(bytes), there.begin())) return false;
  }
  return true;
}

}  // namespace

FolderTensors::FolderTensors(fs::path folder, const WeightFiles& weights, std::vector<std::string>& warnings)
    : folder_(std::move(folder)) {
  for (const fs::path& name : weights.names) {
    files_.push_back(std::make_unique<SafetensorsFile>(folder_ / name));
    for (const StoredTensor& tensor : files_.back()->tensors()) add(*files_.back(), tensor, name, weights, warnings);
  }
  check_index(weights, warnings);
}

void FolderTensors::add(const SafetensorsFile& file, const StoredTensor& tensor, const fs::path& name,
                        const WeightFiles& weights, std::vector<std::string>& warnings) {
  const Place place{.tensor = &tensor, .stored = {&file, &tensor}};
  const auto [known, added] = by_name_.try_emplace(tensor.name, place);
  if (added) return;
  const Place other = known->second;
  const bool same = same_bytes(other.stored, place.stored);
  const auto named = weights.index.find(tensor.name);
  const auto both = [&] {
    return cat("tensor '", tensor.name, "' is both in ", other.stored.file->path().string(), " and in ",
               file.path().string(), ", with other values");
  };
  if (!same && named == weights.index.end()) throw InputError(both());
  if (named != weights.index.end() && named->second == name) known->second = place;
  if (!same)
    warnings.push_back(cat(both(), "; it is read from ", named->second.string(), ", which ", kIndexName, " names"));
}

// Compares the index with the shards, which decide.
void FolderTensors::check_index(const WeightFiles& weights, std::vector<std::string>& warnings) {
  std::string misplaced;
  int64_t count = 0;
  for (const auto& [name, shard] : weights.index) {
    const Place* place = find(name);
    if (place == nullptr) {
      phantoms_.emplace(name, shard);
    } else if (place->stored.file->path() != folder_ / shard && count++ == 0) {
      misplaced = cat("tensor '", name, "' is not in ", shard.string(), " but in ",
                      place->stored.file->path().filename().string());
    }
  }
  const std::string index = (folder_ / kIndexName).string();
  if (count > 0)
    warnings.push_back(cat(index, " is wrong about ", count, count == 1 ? " tensor: " : " tensors: ", misplaced));
  if (phantoms_.empty()) return;
  warnings.push_back(cat(index, " names ", phantoms_.size(), phantoms_.size() == 1 ? " tensor" : " tensors",
                         " that no file has, such as '", phantoms_.begin()->first,
                         "'; the model does without what it does not need"));
}

const FolderTensors::Place* FolderTensors::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &found->second;
}

const FolderTensors::Place& FolderTensors::at(std::string_view name) const {
  if (const Place* place = find(name)) return *place;
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

std::vector<const StoredTensor*> FolderTensors::all() const {
  std::vector<const StoredTensor*> all;
  for (const auto& file : files_) {
    for (const StoredTensor& tensor : file->tensors()) {
      const auto renamed = renamed_.find(&tensor);
      const Place* place = find(renamed == renamed_.end() ? tensor.name : renamed->second);
      if (place != nullptr && place->stored.tensor == &tensor) all.push_back(place->tensor);
    }
  }
  return all;
}

void FolderTensors::put(std::unique_ptr<DecodedWeight> weight, const std::vector<std::string>& parts) {
  const StoredTensor &stored = *weight->stored().tensor, &values = weight->values();
  for (const std::string& part : parts) hide(part);
  hide(stored.name);
  const Place place{.tensor = &values, .stored = weight->stored(), .decoded = weight.get()};
  if (!by_name_.try_emplace(values.name, place).second) {
    throw tensor_error(folder_, values.name, "tensor '", values.name, "' is stored beside '", stored.name,
                       "', which is the same weight in another form: take one of them out");
  }
  if (values.name != stored.name) renamed_.emplace(&stored, values.name);
  decoded_.push_back(std::move(weight));
}

}  // namespace gptq
