#include "output_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gptq/error.h"
#include "inputs.h"
#include "printing.h"

namespace gptq {
namespace {

// The descriptor of stdout or stderr where the file is what that leads to, else -1.
int standard_stream(const struct stat& file) {
  for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat status {};
    const int flags = fcntl(descriptor, F_GETFL);
    if (flags != -1 && (flags & O_ACCMODE) != O_RDONLY && fstat(descriptor, &status) == 0 && is_same(status, file))
      return descriptor;
  }
  return -1;
}

[[noreturn]] void fail(int error) { throw std::system_error(error, std::generic_category()); }

void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(written == 0 ? EIO : errno);
    text.remove_prefix(static_cast<size_t>(written));
  }
}

// File systems that cannot sync a file say EINVAL.
void sync(int descriptor) {
  while (fsync(descriptor) != 0) {
    if (errno == EINVAL) return;
    if (errno != EINTR) fail(errno);
  }
}

// Of an open file that may have no name.
std::string path_of(int descriptor) { return "/proc/self/fd/" + std::to_string(descriptor); }

// As far as this user may.
void keep_owner_and_mode(int file, const struct stat& old) {
  if (fchown(file, old.st_uid, old.st_gid) != 0 && errno != EPERM) fail(errno);
  if (fchmod(file, old.st_mode & 07777) != 0 && errno != EPERM) fail(errno);
}

bool takes_no_new_files(int error) { return error == EACCES || error == EPERM || error == EROFS; }

}  // namespace

OutputFile::OutputFile(const std::string& option, const std::string& path) : option_(option), path_(path) {
  if (path.empty()) return;
  struct stat status {};
  const bool is_there = status_of(path, status);
  if (!is_there && errno != ENOENT) refuse(std::strerror(errno));
  if (is_there && S_ISDIR(status.st_mode)) refuse("it is a folder");
  const int standard = is_there ? standard_stream(status) : -1;
  if (standard >= 0) {
    stream_ = fcntl(standard, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (stream_ < 0) refuse(std::strerror(errno));
  } else if (is_there && !S_ISREG(status.st_mode)) {
    // A pipe without a reader would wait for one.
    stream_ = open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (stream_ < 0) refuse(errno == ENXIO ? "nobody reads from it" : std::strerror(errno));
    fcntl(stream_, F_SETFL, fcntl(stream_, F_GETFL) & ~O_NONBLOCK);
  } else {
    target_ = resolved_path(path);
    if (is_there) old_ = status;
    look_at_file();
  }
}

OutputFile::~OutputFile() {
  if (stream_ >= 0) close(stream_);
}

void OutputFile::refuse(const std::string& why) const {
  throw InputError("`" + option_ + "` " + path_ + ": the file cannot be written (" + why + ")",
                   {.option = option_, .file = path_, .tensor = {}});
}

void OutputFile::look_at_file() {
  if (path_.ends_with('/')) refuse("it is a folder");
  if (old_ && access(target_.c_str(), W_OK) != 0) refuse(std::strerror(errno));
  std::string name;
  const int beside = create_beside(name);
  if (beside >= 0) {
    close(beside);
    if (!name.empty()) unlink(name.c_str());
    return;
  }
  in_place_ = old_ && takes_no_new_files(errno);
  if (!in_place_) refuse(std::strerror(errno));
}

// Without a name where the file system has such files: then a run that is killed meanwhile leaves none.
int OutputFile::create_beside(std::string& name) const {
  name.clear();
  const int file = open(target_.parent_path().c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  if (file >= 0 && access(path_of(file).c_str(), F_OK) == 0) return file;
  if (file >= 0) close(file);  // without /proc it never gets a name
  return with_name_beside([&](const char* free) { return open(free, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666); },
                          name);
}

int OutputFile::with_name_beside(const std::function<int(const char*)>& take, std::string& name) const {
  constexpr size_t kLongest = 200;  // of names of 255 bytes
  const std::string stem = target_.parent_path() /
                           (target_.filename().string().substr(0, kLongest) + ".partial-" + std::to_string(getpid()));
  for (int attempt = 0; attempt < 100; ++attempt) {
    name = attempt == 0 ? stem : stem + "-" + std::to_string(attempt);
    const int result = take(name.c_str());
    if (result >= 0 || errno != EEXIST) return result;
  }
  return -1;
}

// An unnamed file cannot take the place of another: it gets a name first.
void OutputFile::give_name(int file, std::string& name) const {
  const std::string unnamed = path_of(file);
  const auto link_to = [&](const char* free) {
    return linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, free, AT_SYMLINK_FOLLOW);
  };
  if (with_name_beside(link_to, name) != 0) fail(errno);
}

void OutputFile::write_in_place(const std::string& text) const {
  const int file = open(target_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) fail(errno);
  try {
    write_all(file, text);
    sync(file);
  } catch (...) {
    close(file);
    throw;
  }
  if (close(file) != 0) fail(errno);
}

void OutputFile::replace(const std::string& text) const {
  std::string name;
  const int file = create_beside(name);
  if (file < 0) fail(errno);
  bool is_open = true;
  try {
    if (old_) keep_owner_and_mode(file, *old_);
    write_all(file, text);
    sync(file);
    if (name.empty()) give_name(file, name);
    is_open = false;
    if (close(file) != 0) fail(errno);
    if (std::rename(name.c_str(), target_.c_str()) != 0) fail(errno);
  } catch (const std::system_error& error) {
    if (is_open) close(file);
    if (!name.empty()) unlink(name.c_str());
    // A mount point, such as a single file of a container.
    if (error.code() != std::errc::device_or_resource_busy) throw;
    write_in_place(text);
  }
}

void OutputFile::write(const std::string& text, const std::string& intact) {
  if (!is_wanted()) return;
  try {
    if (stream_ >= 0) {
      finish_stdout();  // which it may be
      write_all(stream_, text);
    } else {
      in_place_ ? write_in_place(text) : replace(text);
    }
  } catch (const std::system_error& error) {
    throw Error("`" + option_ + "` " + path_ + ": writing it failed (" + error.code().message() + "); " + intact,
                {.option = option_, .file = path_, .tensor = {}});
  }
}

}  // namespace gptq
