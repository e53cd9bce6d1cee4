#include "io/checkpoint_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "io/checkpoint.h"
#include "io/file.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

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

}  // namespace

CheckpointWriter::CheckpointWriter(fs::path folder, std::vector<TensorSpec> tensors, size_t max_shard_bytes)
    : folder_(std::move(folder)) {
  std::error_code error;
  fs::create_directory(folder_, error);
  if (error) throw cannot(folder_, "create it", error.value());
  std::vector<std::vector<TensorSpec>> layout = cut_shards(std::move(tensors), max_shard_bytes);
  nlohmann::json weight_map = nlohmann::json::object();
  size_t total = 0;
  shards_.reserve(layout.size());
  for (size_t i = 0; i < layout.size(); ++i) {
    const std::string name = shard_name(i, layout.size());
    for (const TensorSpec& tensor : layout[i]) {
      if (!shard_of_.emplace(tensor.name, i).second)
        throw Error(cat("tensor '", tensor.name, "' is to be written twice"));
      weight_map[tensor.name] = name;
      total += tensor.bytes();
    }
    output_bytes_ += SafetensorsWriter::file_size(layout[i]);
    shards_.emplace_back(folder_ / name, std::move(layout[i]));
  }
  if (shards_.size() > 1) {
    const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
    write_file(kIndexName, index.dump(2) + "\n");
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

bool CheckpointWriter::keep(const Digests& tensors) {
  const auto is_whole = [&](const auto& tensor) {
    return shard_of_.count(tensor.first) != 0 && shard_of(tensor.first).holds(tensor.first, tensor.second);
  };
  if (!std::all_of(tensors.begin(), tensors.end(), is_whole)) return false;
  for (const auto& [name, digest] : tensors) shard_of(name).keep(name);
  return true;
}

void CheckpointWriter::flush() {
  for (SafetensorsWriter& shard : shards_) shard.flush();
}

Descriptor CheckpointWriter::create(const fs::path& relative, fs::perms mode) const {
  const fs::path path = folder_ / relative;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) throw cannot(path.parent_path(), "create it", error.value());
  fs::remove(path, error);
  Descriptor file(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, static_cast<mode_t>(mode)));
  if (!file) throw write_failure(path, errno, 0);
  return file;
}

void CheckpointWriter::write_file(const fs::path& relative, std::string_view text) {
  const Descriptor file = create(relative, fs::perms{0666});
  write_all(*file, folder_ / relative, text.data(), text.size(), 0);
  sync_file(*file, folder_ / relative);
}

void CheckpointWriter::copy_file(const fs::path& from, const fs::path& relative) {
  const Descriptor source = open_regular(from);
  const size_t size = file_size(source, from);
  // Of the permissions, those that let the owner write must be there until it is written.
  std::error_code error;
  const fs::perms mode = fs::status(from, error).permissions() & fs::perms{0777};
  const Descriptor file = create(relative, (mode | fs::perms::owner_write) & fs::perms{0777});
  const fs::path to = folder_ / relative;
  std::vector<char> buffer(std::min<size_t>(size, 1 << 20));
  for (size_t done = 0; done < size;) {
    const size_t piece = std::min(buffer.size(), size - done);
    read_all(*source, from, buffer.data(), piece, done);
    write_all(*file, to, buffer.data(), piece, done);
    done += piece;
  }
  sync_file(*file, to);
}

void CheckpointWriter::finish() {
  for (SafetensorsWriter& shard : shards_) shard.finish();
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->is_directory(error)) sync_folder(entry->path());
  }
  sync_folder(folder_);
}

}  // namespace gptq
