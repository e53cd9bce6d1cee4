// OUT.partial: where a run writes its output until it is whole. The folder belongs to the run that holds its lock,
// which the system gives back when that run ends in any way.
#pragma once

#include <filesystem>
#include <string>

#include "io/file.h"

namespace gptq {

class PartialFolder {
 public:
  // Touches nothing. output: as the user spells it, for messages.
  PartialFolder(std::filesystem::path folder, std::filesystem::path output)
      : folder_(std::move(folder)), output_(std::move(output)) {}

  // Makes the folder if it is missing, and locks it. Throws ExistsError if another run holds the lock or if the folder
  // is not of this kind, InputError for missing permission.
  void lock();
  bool is_locked() const { return static_cast<bool>(lock_); }
  // Whether an earlier run left something here.
  bool continues() const { return continues_; }

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path file(const std::string& name) const { return folder_ / name; }
  size_t allocated_bytes(const std::string& name) const;

  // Removes all but the lock, the file `last` after all others. Throws InputError, with the file that stays.
  void clear(const std::string& last);
  // The same, and the folder too.
  void remove(const std::string& last);
  // Removes what can be removed.
  void drop() noexcept;

 private:
  bool try_lock();

  const std::filesystem::path folder_, output_;
  Descriptor lock_;
  bool continues_ = false;
};

}  // namespace gptq
