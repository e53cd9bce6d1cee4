// A file that a run ends with.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include <sys/stat.h>

namespace gptq {

// Looked at before the run, so that a typing error shows then. Written beside the old one and renamed, so that the old
// one stays where anything fails; pipes, devices and what stdout is are written as they are. `option` is what names the
// path; an empty path is no file, and nothing is written.
class OutputFile {
 public:
  OutputFile(const std::string& option, const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  bool is_wanted() const { return !path_.empty(); }

  // Throws Error if it cannot be written. `intact`: what a failure leaves whole, for its message.
  void write(const std::string& text, const std::string& intact);

 private:
  void look_at_file();
  // An open file and its name, if it has one; -1 with errno if there is none.
  int create_beside(std::string& name) const;
  // Calls take(free name) until it finds one; what that returns, or -1 with errno.
  int with_name_beside(const std::function<int(const char*)>& take, std::string& name) const;
  void give_name(int file, std::string& name) const;
  void replace(const std::string& text) const;
  void write_in_place(const std::string& text) const;
  [[noreturn]] void refuse(const std::string& why) const;

  std::string option_, path_;
  std::filesystem::path target_;    // resolved
  std::optional<struct stat> old_;  // of the file that it replaces
  bool in_place_ = false;           // its folder takes no new files
  int stream_ = -1;                 // a pipe or a device, open
};

}  // namespace gptq
