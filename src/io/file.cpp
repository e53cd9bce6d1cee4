#include "io/file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

namespace gptq {

namespace fs = std::filesystem;

namespace {

// fsync(2), again after a signal.
int sync(int descriptor) {
  int failed = 0;
  do {
    failed = fsync(descriptor);
  } while (failed != 0 && errno == EINTR);
  return failed;
}

}  // namespace

InputError cannot(const fs::path& path, const char* what, int error) {
  return file_error(path, "cannot ", what, " (", std::strerror(error), ")");
}

InputError write_failure(const fs::path& path, int error, size_t needed) {
  if (error != ENOSPC && error != EDQUOT && error != EFBIG && error != EIO) return cannot(path, "write it", error);
  const std::optional<uint64_t> room = free_bytes(path.parent_path());
  return file_error(path, "cannot write it (", std::strerror(error), "): ", needed, " bytes are needed",
                    room ? cat(", and its disk has ", *room, " free") : "");
}

std::optional<uint64_t> free_bytes(const fs::path& path) {
  struct statvfs disk {};
  if (statvfs(path.empty() ? "." : path.c_str(), &disk) != 0) return std::nullopt;
  return uint64_t{disk.f_bavail} * disk.f_frsize;
}

fs::file_type type_of(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::none) throw cannot(path, "look at it", error.value());
  return type;
}

bool is_there(const fs::path& path) { return type_of(path) != fs::file_type::not_found; }

fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path real = fs::weakly_canonical(fs::absolute(path, error), error);
  if (error) throw cannot(path, "find it", error.value());
  return real.filename().empty() ? real.parent_path() : real;
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

Descriptor open_regular(const fs::path& path) {
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!file || fstat(*file, &status) != 0) throw cannot(path, "open it", errno);
  if (!S_ISREG(status.st_mode)) throw file_error(path, "not a regular file");
  return file;
}

size_t file_size(const Descriptor& file, const fs::path& path) {
  struct stat status {};
  if (fstat(*file, &status) != 0) throw cannot(path, "look at it", errno);
  return static_cast<size_t>(status.st_size);
}

std::string read_text(const fs::path& path, size_t limit) {
  const Descriptor file = open_regular(path);
  const size_t size = file_size(file, path);
  if (size > limit) throw file_error(path, "has ", size, " bytes; a file of its kind has at most ", limit);
  std::string text(size, ' ');
  read_all(*file, path, text.data(), size, 0);
  return text;
}

std::string read_to_end(int descriptor, const fs::path& path) {
  constexpr size_t kPiece = size_t{1} << 20;
  struct stat status {};
  const bool is_device = fstat(descriptor, &status) == 0 && S_ISCHR(status.st_mode) && isatty(descriptor) == 0;
  std::string text;
  for (size_t size = 0;;) {
    text.resize(size + kPiece);
    const ssize_t count = read(descriptor, text.data() + size, kPiece);
    if (count < 0 && errno != EINTR) throw cannot(path, "read it", errno);
    if (count > 0 && is_device) throw file_error(path, "is a device, which may have no end; give a file or a pipe");
    size += static_cast<size_t>(std::max<ssize_t>(count, 0));
    text.resize(size);
    if (count == 0) return text;
  }
}

void write_all(int descriptor, const fs::path& path, const void* data, size_t bytes, size_t offset) {
  const auto* from = static_cast<const char*>(data);
  for (size_t done = 0; done < bytes;) {
    const ssize_t written = pwrite(descriptor, from + done, bytes - done, static_cast<off_t>(offset + done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw write_failure(path, written == 0 ? EIO : errno, bytes - done);
    done += static_cast<size_t>(written);
  }
}

void read_all(int descriptor, const fs::path& path, void* to, size_t bytes, size_t offset) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t count =
        pread(descriptor, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw cannot(path, "read it", errno);
    if (count == 0) throw file_error(path, "became shorter while it was read");
    done += static_cast<size_t>(count);
  }
}

void sync_file(int descriptor, const fs::path& path) {
  if (sync(descriptor) != 0) throw write_failure(path, errno, 0);
}

void sync_folder(const fs::path& path) {
  const Descriptor folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if ((!folder || sync(*folder) != 0) && errno != EINVAL && errno != EACCES)
    throw cannot(path, "write it to disk", errno);
}

}  // namespace gptq
