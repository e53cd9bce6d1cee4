#include "io/output_folder.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <new>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include "base/error.h"
#include "io/rename.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// The mark of a placement, with the identity of the new model. It goes last: what a run leaves that is killed while it
// clears up is known to be of no use.
constexpr const char* kMark = "placing";
constexpr size_t kMaxMarkBytes = 4096;

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

fs::path resolved_output(const fs::path& output) {
  if (output.empty()) throw InputError("no output folder given");
  return resolved(output);
}

PartialFolder partial_of(const fs::path& output) { return {resolved_output(output).string() + ".partial", output}; }

bool is_model_placed(const PartialFolder& partial, const fs::path& output) {
  const fs::path mark = partial.file(kMark);
  return is_there(mark) && read_text(mark, kMaxMarkBytes) == identity(output);
}

// Without memory to find out, yes: what is left can be removed later, what is removed cannot be resumed.
bool may_be_there(const PartialFolder& partial, const char* name) noexcept {
  try {
    std::error_code error;
    return fs::exists(partial.file(name), error);
  } catch (const std::bad_alloc&) {
    return true;
  }
}

}  // namespace

OutputFolder::OutputFolder(const fs::path& output, const fs::path& source, Options options)
    : asked_(output), output_(resolved_output(output)), options_(options), partial_(partial_of(output)) {
  check_output(resolved(source));
  if (!is_there(path())) refuse_existing();
  fs::path existing = output_.parent_path();
  for (; !is_there(existing); existing = existing.parent_path())
    created_parents_.insert(created_parents_.begin(), existing);
  try {
    std::error_code error;
    for (const fs::path& parent : created_parents_) {
      if (!fs::create_directory(parent, error) && error) throw cannot(parent, "create it", error.value());
    }
    partial_.lock();
    recover();
    refuse_existing();
    if (continues() && !options_.resume) {
      if (!options_.overwrite) {
        throw ExistsError(cat(path().string(),
                              ": left by a run that ended early; pass `resume` to continue it, or "
                              "`overwrite` to start again"),
                          {.option = "resume", .file = path().string(), .tensor = {}});
      }
      partial_.clear(kMark);
    }
    const std::lock_guard guard(living_mutex);
    living()[output_] = this;
  } catch (...) {
    if (partial_.is_locked() && !continues()) partial_.drop();
    remove_parents();
    throw;
  }
}

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
  if (placed_ || left_ || (options_.resume && may_be_there(partial_, "journal"))) return;
  partial_.drop();
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

// Ends what a killed run had begun: a placement that was done, or one that stopped between two renames.
void OutputFolder::recover() {
  if (is_model_placed(partial_, output_)) return partial_.clear(kMark);
  if (is_there(file("old")) && !is_there(output_)) move_to(file("old"), output_, "move the old output back");
}

bool OutputFolder::clear_placed(const fs::path& output) {
  try {
    PartialFolder partial = partial_of(output);
    if (!is_there(output) || !is_there(partial.path())) return false;
    partial.lock();
    if (partial.continues() && !is_model_placed(partial, output)) return false;
    partial.remove(kMark);
    return true;
  } catch (const InputError&) {  // another run is writing it, or permission is missing
    return false;
  }
}

void OutputFolder::check_room(size_t bytes) const {
  const std::optional<uint64_t> room = free_bytes(path());
  if (room && *room + partial_.allocated_bytes("model") < bytes)
    throw file_error(asked_, "the output needs ", bytes, " bytes, but its disk has ", *room, " free");
}

void OutputFolder::exchange() {
  constexpr const char* kWhat = "put the finished model in place";
  if (!is_there(output_)) return move_to(model(), output_, kWhat);
  if (!options_.overwrite) {
    throw ExistsError(cat(asked_.string(), ": was created during the run; pass `overwrite` to replace it"),
                      {.option = "overwrite", .file = asked_.string(), .tensor = {}});
  }
  exchange_with(model(), output_, file("old"), kWhat);
}

std::vector<std::string> OutputFolder::put_in_place() {
  {
    const std::lock_guard guard(living_mutex);
    if (left_) throw Cancelled();
    placing_ = true;
  }
  const fs::path mark = file(kMark);
  const std::string text = identity(model());
  try {
    const Descriptor placing(open(mark.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666));
    if (!placing) throw write_failure(mark, errno, text.size());
    write_all(*placing, mark, text.data(), text.size(), 0);
    sync_file(*placing, mark);
    sync_folder(path());
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
  attempt([&] { partial_.remove(kMark); });
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
    folder.partial_.drop();
    folder.remove_parents();
  } catch (...) {  // no memory or no such path: nothing can be removed
  }
  return true;
}

}  // namespace gptq
