#include "io/partial_folder.h"

#include <cerrno>
#include <new>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/error.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLockText = "gptq.cpp: an output in progress\n";
constexpr size_t kMaxLockBytes = 4096;

// Whether a folder is one of this kind: no other is ever removed.
bool is_of_this_kind(const fs::path& folder) {
  std::error_code error;
  if (fs::is_symlink(folder, error) || !fs::is_directory(folder, error)) return false;
  if (fs::is_empty(folder, error)) return true;  // killed between mkdir and the lock
  try {
    const std::string text = read_text(folder / "lock", kMaxLockBytes);
    return text.empty() || text == kLockText;
  } catch (const InputError&) {
    return false;
  }
}

bool lock_file(int file) {
  while (flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EINTR) return errno != EWOULDBLOCK;  // others: a file system without locks
  }
  return true;
}

bool is_at(int file, const fs::path& path) {
  struct stat mine {
  }, current{};
  return fstat(file, &mine) == 0 && stat(path.c_str(), &current) == 0 && mine.st_ino == current.st_ino;
}

}  // namespace

// A lock counts only while the file at its path is the locked one: another run may remove the folder in between.
bool PartialFolder::try_lock() {
  const fs::path path = file("lock");
  std::error_code error;
  const bool created = fs::create_directory(folder_, error);
  continues_ = !created;  // for all that is known
  if (std::error_code ignored; error && !fs::exists(folder_, ignored))
    throw cannot(output_, "create it", error.value());
  if (!created && !is_of_this_kind(folder_)) {
    throw ExistsError(cat(folder_.string(),
                          ": it is in the way, and was not made by this program; move it, or choose "
                          "another output"),
                      {.option = {}, .file = folder_.string(), .tensor = {}});
  }
  Descriptor opened(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!opened && errno == ENOENT) return false;
  if (!opened) {
    const int reason = errno;
    if (created) rmdir(folder_.c_str());
    throw cannot(path, "create it", reason);
  }
  if (!lock_file(*opened)) {
    throw ExistsError(cat(output_.string(), ": another run is writing it"),
                      {.option = {}, .file = output_.string(), .tensor = {}});
  }
  if (!is_at(*opened, path)) return false;
  lock_ = std::move(opened);
  return true;
}

void PartialFolder::lock() {
  while (!try_lock()) {
  }
  std::error_code error;
  bool is_empty = true;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error))
    is_empty = is_empty && entry->path().filename() == "lock";
  if (error) throw cannot(folder_, "list it", error.value());
  continues_ = !is_empty;
  // A failure removes what does not continue a run.
  write_all(*lock_, file("lock"), kLockText.data(), kLockText.size(), 0);
}

size_t PartialFolder::allocated_bytes(const std::string& name) const {
  size_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(file(name), error), end; !error && entry != end; entry.increment(error)) {
    struct stat status {};
    if (stat(entry->path().c_str(), &status) == 0 && S_ISREG(status.st_mode))
      bytes += static_cast<size_t>(status.st_blocks) * 512;
  }
  return bytes;
}

void PartialFolder::clear(const std::string& last) {
  const auto remove_or_throw = [](const fs::path& path) {
    std::error_code failed;
    fs::remove_all(path, failed);
    if (failed) throw cannot(path, "remove it", failed.value());
  };
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
    if (const fs::path name = entry->path().filename(); name != "lock" && name != last) remove_or_throw(entry->path());
  }
  if (error) throw cannot(folder_, "list it", error.value());
  remove_or_throw(file(last));
  continues_ = false;
}

void PartialFolder::remove(const std::string& last) {
  clear(last);
  std::error_code error;
  fs::remove_all(folder_, error);
  if (error) throw cannot(folder_, "remove it", error.value());
}

// Repeated, as a thread that still writes may add a file while the folder is removed, and memory may be short for a
// moment.
void PartialFolder::drop() noexcept {
  for (int attempts = 3; attempts > 0; --attempts) {
    try {
      std::error_code error;
      fs::remove_all(folder_, error);
      if (!error) return;
    } catch (const std::bad_alloc&) {
    }
  }
}

}  // namespace gptq
