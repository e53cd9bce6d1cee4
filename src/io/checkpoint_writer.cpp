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

}  // namespace

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
    nlohmann::json weight_map = nlohmann::json::object();
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
      const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
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

}  // namespace gptq
