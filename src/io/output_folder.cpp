#include "io/output_folder.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLockText = "gptq.cpp: an output in progress\n";
constexpr size_t kMaxSmallFile = 4096;

// The living folders of this process, by output, for leave().
std::mutex living_mutex;
std::map<fs::path, OutputFolder*>& living() {
  static std::map<fs::path, OutputFolder*> folders;
  return folders;
}

// "device:inode" of a file or folder; empty if there is none.
std::string identity(const fs::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return {};
  return cat(status.st_dev, ':', status.st_ino, '\n');
}

// renameat2(2), which old C libraries lack. Returns errno, or 0.
int rename_with(const fs::path& from, const fs::path& to, unsigned flags) {
#ifdef SYS_renameat2
  return syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}
constexpr unsigned kNoReplace = 1, kExchange = 2;  // RENAME_NOREPLACE, RENAME_EXCHANGE

bool is_unsupported(int error) { return error == ENOSYS || error == EINVAL || error == ENOTSUP; }

void rename_or_throw(const fs::path& from, const fs::path& to, const char* what) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw cannot(to, what, error.value());
}

size_t allocated_bytes(const fs::path& folder) {
  size_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    struct stat status {};
    if (stat(entry->path().c_str(), &status) == 0 && S_ISREG(status.st_mode))
      bytes += static_cast<size_t>(status.st_blocks) * 512;
  }
  return bytes;
}

// Whether a folder is one of this kind: no other is ever removed.
bool is_output_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_symlink(folder, error) || !fs::is_directory(folder, error)) return false;
  if (fs::is_empty(folder, error)) return true;  // killed between mkdir and the lock
  try {
    const std::string text = read_text(folder / "lock", kMaxSmallFile);
    return text.empty() || text == kLockText;
  } catch (const InputError&) {
    return false;
  }
}

}  // namespace

OutputFolder::OutputFolder(const fs::path& output, const fs::path& source, Options options)
    : asked_(output), options_(options) {
  if (output.empty()) throw InputError("no output folder given");
  output_ = resolved(output);
  folder_ = output_.string() + ".partial";
  check_output(resolved(source));
  if (!is_there(folder_)) refuse_existing();
  fs::path existing = output_.parent_path();
  for (; !is_there(existing); existing = existing.parent_path())
    created_parents_.insert(created_parents_.begin(), existing);
  try {
    std::error_code error;
    for (const fs::path& parent : created_parents_) {
      if (!fs::create_directory(parent, error) && error) throw cannot(parent, "create it", error.value());
    }
    lock();
    recover();
    refuse_existing();
    if (continues_ && !options_.resume) {
      if (!options_.overwrite) {
        throw ExistsError(cat(folder_.string(),
                              ": left by a run that ended early; pass `resume` to continue it, or "
                              "`overwrite` to start again"),
                          {.option = "resume", .file = folder_.string(), .tensor = {}});
      }
      clear();
    }
    const std::lock_guard guard(living_mutex);
    living()[output_] = this;
  } catch (...) {
    std::error_code ignored;
    if (lock_ && !continues_) fs::remove_all(folder_, ignored);
    remove_parents();
    throw;
  }
}

OutputFolder::OutputFolder(const fs::path& output)
    : asked_(output), output_(resolved(output)), folder_(output_.string() + ".partial"), options_{}, left_(true) {}

void OutputFolder::refuse_existing() const {
  if (options_.overwrite || !is_there(output_)) return;
  throw ExistsError(cat(asked_.string(), ": exists already; pass `overwrite` to replace it, or choose another folder"),
                    {.option = "overwrite", .file = asked_.string(), .tensor = {}});
}

OutputFolder::~OutputFolder() {
  {
    const std::lock_guard guard(living_mutex);
    if (const auto found = living().find(output_); found != living().end() && found->second == this)
      living().erase(found);
  }
  std::error_code error;
  const bool is_kept = options_.resume && fs::exists(file("journal"), error);
  if (placed_ || left_ || is_kept) return;
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
  remove_parents();
}

// Innermost first; a folder that others have put files in stays.
void OutputFolder::remove_parents() noexcept {
  std::error_code ignored;
  std::for_each(created_parents_.rbegin(), created_parents_.rend(),
                [&](const fs::path& parent) { fs::remove(parent, ignored); });
}

void OutputFolder::check_output(const fs::path& source) const {
  if (is_inside(output_, source) || is_inside(source, output_)) {
    throw file_error(asked_, "the output must be another folder than the model ", source.string(),
                     ", neither inside nor around it");
  }
  const fs::file_type type = type_of(output_);
  std::error_code error;
  if (type == fs::file_type::not_found) {
    if (fs::is_symlink(output_, error)) throw file_error(asked_, "a link to a folder that is missing");
    return;
  }
  if (!options_.overwrite) return;  // refused once the lock is there
  const bool empty = type == fs::file_type::directory && fs::is_empty(output_, error);
  if (error) throw cannot(asked_, "list it", error.value());
  if (type != fs::file_type::directory || (!empty && !is_there(output_ / "config.json")))
    throw file_error(asked_, "is not a model folder, so `overwrite` does not replace it; choose another folder");
}

// A lock counts only while the file at its path is the locked one: another run may remove the folder in between.
void OutputFolder::lock() {
  const fs::path path = file("lock");
  for (;;) {
    std::error_code error;
    const bool created = fs::create_directory(folder_, error);
    continues_ = !created;  // for all that is known
    if (std::error_code ignored; error && !fs::exists(folder_, ignored))
      throw cannot(asked_, "create it", error.value());
    if (!created && !is_output_folder(folder_)) {
      throw ExistsError(cat(folder_.string(),
                            ": it is in the way, and was not made by this program; move it, or choose "
                            "another output"),
                        {.option = {}, .file = folder_.string(), .tensor = {}});
    }
    Descriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (!file && errno == ENOENT) continue;
    if (!file) {
      const int reason = errno;
      if (created) rmdir(folder_.c_str());
      throw cannot(path, "create it", reason);
    }
    int failed = 0;
    do {
      failed = flock(*file, LOCK_EX | LOCK_NB);
    } while (failed != 0 && errno == EINTR);
    if (failed != 0 && errno == EWOULDBLOCK) {
      throw ExistsError(cat(asked_.string(), ": another run is writing it"),
                        {.option = {}, .file = asked_.string(), .tensor = {}});
    }  // other errors: a file system without locks
    struct stat mine {
    }, current{};
    if (fstat(*file, &mine) != 0 || stat(path.c_str(), &current) != 0 || mine.st_ino != current.st_ino) continue;
    lock_ = std::move(file);
    break;
  }
  std::error_code error;
  bool is_empty = true;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error))
    is_empty = is_empty && entry->path().filename() == "lock";
  if (error) throw cannot(folder_, "list it", error.value());
  continues_ = !is_empty;
  write_all(*lock_, path, kLockText.data(), kLockText.size(), 0);  // a failure removes what does not continue a run
}

bool OutputFolder::is_model_placed() const {
  return is_there(file("placing")) && read_text(file("placing"), kMaxSmallFile) == identity(output_);
}

// Ends what a killed run had begun: a placement that was done, or one that stopped between two renames.
void OutputFolder::recover() {
  if (is_model_placed()) return clear();
  if (!is_there(file("old"))) return;
  if (!is_there(output_)) rename_or_throw(file("old"), output_, "move the old output back");
}

bool OutputFolder::clear_placed(const fs::path& output) {
  try {
    OutputFolder folder(output);
    if (!is_there(folder.output_) || !is_there(folder.folder_)) return false;
    folder.lock();
    if (folder.continues_ && !folder.is_model_placed()) return false;
    folder.remove();
    return true;
  } catch (const InputError&) {  // another run is writing it, or permission is missing
    return false;
  }
}

// The mark of a placement goes last: what a run leaves that is killed meanwhile is known to be cleared up.
void OutputFolder::clear() {
  const auto remove_or_throw = [](const fs::path& path) {
    std::error_code failed;
    fs::remove_all(path, failed);
    if (failed) throw cannot(path, "remove it", failed.value());
  };
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
    if (const fs::path name = entry->path().filename(); name != "lock" && name != "placing")
      remove_or_throw(entry->path());
  }
  if (error) throw cannot(folder_, "list it", error.value());
  remove_or_throw(file("placing"));
  continues_ = false;
}

void OutputFolder::remove() {
  clear();
  std::error_code error;
  fs::remove_all(folder_, error);
  if (error) throw cannot(folder_, "remove it", error.value());
}

void OutputFolder::check_room(size_t bytes) const {
  const std::optional<uint64_t> room = free_bytes(folder_);
  if (room && *room + allocated_bytes(model()) < bytes)
    throw file_error(asked_, "the output needs ", bytes, " bytes, but its disk has ", *room, " free");
}

void OutputFolder::exchange() {
  if (!is_there(output_)) {
    const int error = rename_with(model(), output_, kNoReplace);
    if (error == 0) return;
    if (!is_unsupported(error)) throw cannot(output_, "put the finished model in place", error);
    return rename_or_throw(model(), output_, "put the finished model in place");
  }
  if (!options_.overwrite) {
    throw ExistsError(cat(asked_.string(), ": was created during the run; pass `overwrite` to replace it"),
                      {.option = "overwrite", .file = asked_.string(), .tensor = {}});
  }
  const int error = rename_with(model(), output_, kExchange);
  if (error == 0) return;
  if (!is_unsupported(error)) throw cannot(output_, "put the finished model in place", error);
  rename_or_throw(output_, file("old"), "move the old output aside");
  try {
    rename_or_throw(model(), output_, "put the finished model in place");
  } catch (const InputError& failure) {
    std::error_code ignored;
    fs::rename(file("old"), output_, ignored);
    if (ignored) throw InputError(cat(failure.what(), "; the old output is ", file("old").string()), failure.subject());
    throw;
  }
}

std::vector<std::string> OutputFolder::put_in_place() {
  {
    const std::lock_guard guard(living_mutex);
    if (left_) throw Cancelled();
    placing_ = true;
  }
  const fs::path mark = file("placing");
  const std::string text = identity(model());
  try {
    const Descriptor placing(open(mark.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666));
    if (!placing) throw write_failure(mark, errno, text.size());
    write_all(*placing, mark, text.data(), text.size(), 0);
    sync_file(*placing, mark);
    sync_folder(folder_);
    exchange();
  } catch (...) {
    const std::lock_guard guard(living_mutex);
    placing_ = false;
    throw;
  }
  placed_ = true;
  std::vector<std::string> remarks;
  const auto attempt = [&](const auto& body) {
    try {
      body();
    } catch (const std::exception& error) {
      remarks.push_back(cat(asked_.string(), " is complete, but ", error.what()));
    }
  };
  attempt([&] { sync_folder(output_.parent_path()); });
  attempt([&] { remove(); });
  return remarks;
}

bool OutputFolder::leave(const fs::path& output) noexcept {
  try {
    const std::lock_guard guard(living_mutex);
    const auto found = living().find(resolved(output));
    if (found == living().end()) return true;
    OutputFolder& folder = *found->second;
    if (folder.placing_) return false;
    folder.left_ = true;
    if (folder.options_.resume) return true;
    std::error_code ignored;
    // Repeated, as a thread that still writes may add a file while the folder is removed.
    for (int attempt = 0; attempt < 3; ++attempt) fs::remove_all(folder.folder_, ignored);
    folder.remove_parents();
  } catch (...) {  // no memory or no such path: nothing can be removed
  }
  return true;
}

}  // namespace gptq
