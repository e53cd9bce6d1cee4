// Files and folders of the operating system, with errors that name the path and the reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <unistd.h>

#include "base/error.h"

namespace gptq {

// Owns an open file descriptor; negative if there is none.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  explicit operator bool() const { return number_ >= 0; }
  int operator*() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

// "PATH: cannot WHAT it (reason)"; error: as errno has it.
InputError cannot(const std::filesystem::path& path, const char* what, int error);
// The error for `needed` bytes that could not be written; with the free bytes if the disk is full.
InputError write_failure(const std::filesystem::path& path, int error, size_t needed);

// Bytes that this user may still write to the disk of `path`, if the system reports them.
std::optional<uint64_t> free_bytes(const std::filesystem::path& path);

// The type of the file at `path`, links followed; file_type::not_found if there is none.
std::filesystem::file_type type_of(const std::filesystem::path& path);
bool is_there(const std::filesystem::path& path);
// Absolute path with links resolved as far as it exists, without a trailing slash.
std::filesystem::path resolved(const std::filesystem::path& path);
// Both resolved; also true for the folder itself.
bool is_inside(const std::filesystem::path& path, const std::filesystem::path& folder);

// Opens a file for reading. Throws InputError for a pipe, a device or a folder, without waiting for a pipe's writer.
Descriptor open_regular(const std::filesystem::path& path);
size_t file_size(const Descriptor& file, const std::filesystem::path& path);
// The whole of a regular file. Throws InputError if it has more than `limit` bytes.
std::string read_text(const std::filesystem::path& path, size_t limit);

// Everything from where a file, pipe or terminal stands to its end. Throws InputError for other devices with bytes.
std::string read_to_end(int descriptor, const std::filesystem::path& path);

void write_all(int descriptor, const std::filesystem::path& path, const void* data, size_t bytes, size_t offset);
// Reads exactly `bytes` bytes at `offset`.
void read_all(int descriptor, const std::filesystem::path& path, void* to, size_t bytes, size_t offset);

// Syncs a file's data, or the entries of a folder, to disk. For a folder ignores EINVAL, from file systems without sync
// of folders, and one that cannot be opened because it may be written but not listed.
void sync_file(int descriptor, const std::filesystem::path& path);
void sync_folder(const std::filesystem::path& path);

}  // namespace gptq
