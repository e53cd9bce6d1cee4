// What a command reads, so that nothing it writes can replace that.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <sys/stat.h>

namespace gptq {

class Inputs {
 public:
  // `what` names the file in messages: "the calibration file". An empty path is none, "-" is stdin.
  void add_file(const std::string& what, const std::string& path);
  // With all files in it.
  void add_folder(const std::string& what, const std::string& path);
  // Not read, but written whole or removed: the output folder.
  void add_output(const std::string& what, const std::string& path);

  // Throws InputError, naming both, if the file that `option` names would replace one of them, by whatever path or
  // link; if a folder of files would be in one of the folders. An empty path is none.
  void refuse_file(const std::string& option, const std::string& path) const;
  void refuse_folder(const std::string& option, const std::string& path) const;

 private:
  struct Input {
    std::string what, path;
    std::filesystem::path resolved;  // absolute, with links followed; empty for stdin
    bool is_folder = false, is_output = false;
  };
  void add(Input input);
  void refuse(const std::string& option, const std::string& path, bool is_folder) const;

  std::vector<Input> inputs_;
};

// Absolute, with links followed as far as there is something: a link to nothing leads to what it names.
std::filesystem::path resolved_path(const std::filesystem::path& path);

// Status of the file at `path`, links followed; false if there is none.
bool status_of(const std::filesystem::path& path, struct stat& status);
// Whether both are one file.
bool is_same(const struct stat& a, const struct stat& b);

}  // namespace gptq
