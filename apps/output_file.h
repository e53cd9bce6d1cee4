// A file that a run ends with.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "gptq/error.h"

namespace gptq {

// Opened before the run so that a typing error shows then; a run that fails leaves no empty file. `flag` is what the
// path was given with; an empty path is no file, and nothing is written.
class OutputFile {
 public:
  OutputFile(const std::string& flag, const std::string& path)
      : flag_(flag), path_(path), is_new_(!path.empty() && !std::filesystem::exists(path)) {
    if (path.empty()) return;
    file_.open(path, std::ios::app);
    if (!file_) throw InputError(flag + " " + path + ": the file cannot be written");
  }
  ~OutputFile() {
    std::error_code ignored;
    if (is_new_ && !written_) std::filesystem::remove(path_, ignored);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  bool is_wanted() const { return !path_.empty(); }

  // Replaces what the file held. `intact`: what a failure leaves whole, for its message.
  void write(const std::string& text, const std::string& intact) {
    if (!is_wanted()) return;
    file_.close();
    file_.open(path_, std::ios::trunc);
    if (!(file_ << text << std::flush)) throw InputError(flag_ + " " + path_ + ": writing it failed; " + intact);
    written_ = true;
  }

 private:
  std::string flag_, path_;
  bool is_new_ = false, written_ = false;
  std::ofstream file_;
};

}  // namespace gptq
