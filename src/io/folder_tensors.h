// The tensors of a folder's safetensors files by name, as its model sees them: weights that are stored in another form
// than their values take the place of the tensors that hold them.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/checkpoint_files.h"
#include "io/decoded_weight.h"
#include "io/safetensors.h"

namespace gptq {

class FolderTensors {
 public:
  struct Place {
    const StoredTensor* tensor = nullptr;  // as the model sees it
    FileTensor stored;
    const DecodedWeight* decoded = nullptr;  // what computes `tensor`, or null
  };

  // Validates the headers of all files. A tensor of a shard that the index omits belongs to the model too; one that the
  // index names and no shard has is only missed when it is asked for. Throws InputError for a tensor that differs in
  // two shards, unless the index says which counts. Adds to the warnings what a user should know.
  FolderTensors(std::filesystem::path folder, const WeightFiles& weights, std::vector<std::string>& warnings);

  const std::filesystem::path& folder() const { return folder_; }
  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const { return files_; }
  // Null if there is none.
  const Place* find(std::string_view name) const;
  // Throws InputError with the folder and the most similar names.
  const Place& at(std::string_view name) const;
  // The index names it, but no file has it.
  bool is_phantom(std::string_view name) const { return phantoms_.count(std::string(name)) != 0; }
  // As the model sees them, file by file, ordered by offset.
  std::vector<const StoredTensor*> all() const;

  // Puts a weight in the place of its stored tensor, and hides the `parts` that it is computed from. Throws InputError
  // if its name is taken by another tensor.
  void put(std::unique_ptr<DecodedWeight> weight, const std::vector<std::string>& parts);
  void hide(const std::string& name) { by_name_.erase(name); }

 private:
  void add(const SafetensorsFile& file, const StoredTensor& tensor, const std::filesystem::path& name,
           const WeightFiles& weights, std::vector<std::string>& warnings);
  void check_index(const WeightFiles& weights, std::vector<std::string>& warnings);

  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::unique_ptr<DecodedWeight>> decoded_;
  std::unordered_map<std::string, Place> by_name_;
  std::unordered_map<const StoredTensor*, std::string> renamed_;  // stored tensors of weights of another name
  std::map<std::string, std::filesystem::path> phantoms_;         // to the file that the index names
};

}  // namespace gptq
