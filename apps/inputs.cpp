#include "inputs.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include <unistd.h>

#include "gptq/error.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

bool is_in(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

// The file in `folder` that is the file of `status`: a link leads to it from there, or from here. Empty if none is.
fs::path twin_in(const fs::path& folder, const struct stat& status) {
  constexpr int kDeepest = 8;  // model folders have few levels
  std::error_code error;
  const auto options = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator entry(folder, options, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry.depth() >= kDeepest) entry.disable_recursion_pending();
    struct stat other {};
    if (status_of(entry->path(), other) && is_same(status, other)) return entry->path();
  }
  return {};
}

}  // namespace

fs::path resolved_path(const fs::path& path) {
  constexpr int kMostLinks = 40;  // as many as Linux follows
  std::error_code error;
  fs::path place = fs::absolute(path, error);
  for (int links = 0; links < kMostLinks && fs::is_symlink(place, error); ++links) {
    const fs::path next = fs::read_symlink(place, error);
    if (error) break;
    place = place.parent_path() / next;
  }
  fs::path real = fs::weakly_canonical(place, error);
  if (error) real = place.lexically_normal();
  return real.has_filename() ? real : real.parent_path();
}

bool status_of(const fs::path& path, struct stat& status) { return stat(path.c_str(), &status) == 0; }

bool is_same(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

void Inputs::add(Input input) {
  if (input.path.empty()) return;
  if (input.path != "-" || input.is_folder) input.resolved = resolved_path(input.path);
  inputs_.push_back(std::move(input));
}

void Inputs::add_file(const std::string& what, const std::string& path) { add({.what = what, .path = path}); }
void Inputs::add_folder(const std::string& what, const std::string& path) {
  add({.what = what, .path = path, .is_folder = true});
}
void Inputs::add_output(const std::string& what, const std::string& path) {
  add({.what = what, .path = path, .is_folder = true, .is_output = true});
}

void Inputs::refuse_file(const std::string& option, const std::string& path) const { refuse(option, path, false); }
void Inputs::refuse_folder(const std::string& option, const std::string& path) const { refuse(option, path, true); }

void Inputs::refuse(const std::string& option, const std::string& path, bool is_folder) const {
  if (path.empty()) return;
  const fs::path resolved = resolved_path(path);
  struct stat status {};
  const bool is_there = status_of(path, status);
  const bool is_file = is_there && S_ISREG(status.st_mode);
  const auto fail = [&](const std::string& why) {
    throw InputError("`" + option + "` " + path + " " + why, {.option = option, .file = path, .tensor = {}});
  };
  // Pipes and devices hold nothing that could be replaced.
  if (is_there && !is_file && !S_ISDIR(status.st_mode)) return;
  for (const Input& input : inputs_) {
    const std::string named = input.what + " " + input.path;
    struct stat other {};
    const bool other_is_there =
        input.resolved.empty() ? fstat(STDIN_FILENO, &other) == 0 : status_of(input.path, other);
    const bool is_one = resolved == input.resolved || (is_there && other_is_there && is_same(status, other));
    if (!input.is_folder) {
      if (is_one && !is_folder) fail("would replace " + named);
      continue;
    }
    if (is_one || is_in(resolved, input.resolved)) {
      fail(std::string(is_one ? "is " : "is in ") + named +
           (input.is_output ? ", which is written whole: choose another place"
                            : ", which is only read: choose another place"));
    }
    if (is_folder) continue;
    if (!is_there && is_in(input.resolved, resolved)) fail("would be in the way of " + named);
    if (!is_file || input.is_output) continue;
    if (const fs::path twin = twin_in(input.path, status); !twin.empty())
      fail("would replace " + twin.string() + " of " + named);
  }
}

}  // namespace gptq
