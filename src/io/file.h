// Files and folders of the operating system, with errors that name the path and the reason.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/statvfs.h>
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

inline InputError cannot(const std::filesystem::path& path, const char* what, int error) {
  return file_error(path, "cannot ", what, " (", std::strerror(error), ")");
}

// Bytes that this user may still write to the disk of `path`, if the system reports them.
inline std::optional<uint64_t> free_bytes(const std::filesystem::path& path) {
  struct statvfs disk {};
  if (statvfs(path.empty() ? "." : path.c_str(), &disk) != 0) return std::nullopt;
  return uint64_t{disk.f_bavail} * disk.f_frsize;
}

// The error for `needed` bytes that could not be written; with the free bytes if the disk is full.
inline InputError write_failure(const std::filesystem::path& path, int error, size_t needed) {
  if (error != ENOSPC && error != EDQUOT && error != EFBIG && error != EIO) return cannot(path, "write it", error);
  const std::optional<uint64_t> room = free_bytes(path.parent_path());
  return InputError(cat(path.string(), ": cannot write it (", std::strerror(error), "): ", needed, " bytes are needed",
                        room ? cat(", and its disk has ", *room, " free") : ""));
}

inline void write_all(int descriptor, const std::filesystem::path& path, const void* data, size_t bytes,
                      size_t offset) {
  const auto* from = static_cast<const char*>(data);
  for (size_t done = 0; done < bytes;) {
    const ssize_t written = pwrite(descriptor, from + done, bytes - done, static_cast<off_t>(offset + done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw write_failure(path, written == 0 ? EIO : errno, bytes - done);
    done += static_cast<size_t>(written);
  }
}

// Reads exactly `bytes` bytes at `offset`.
inline void read_all(int descriptor, const std::filesystem::path& path, void* to, size_t bytes, size_t offset) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t count =
        pread(descriptor, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw cannot(path, "read it", errno);
    if (count == 0) throw InputError(cat(path.string(), ": became shorter while it was read"));
    done += static_cast<size_t>(count);
  }
}

// Syncs the entries of a folder to disk. Ignores EINVAL, from file systems without sync of folders, and a folder that
// cannot be opened because it may be written but not listed.
inline void sync_folder(const std::filesystem::path& path) {
  const Descriptor folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if ((!folder || fsync(*folder) != 0) && errno != EINVAL && errno != EACCES)
    throw cannot(path, "write it to disk", errno);
}

}  // namespace gptq
