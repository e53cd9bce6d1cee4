// Terminal output: a progress bar on a terminal, plain lines in a pipe, nothing when quiet. All of it goes to stderr.
#pragma once

#include <string>

#include "gptq/gptq.h"

namespace gptq {

class Terminal {
 public:
  enum class Verbosity { quiet, normal, verbose };
  explicit Terminal(Verbosity verbosity);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Shows messages and progress; warnings and progress alone where `messages` is false.
  Listener listener(bool messages = true);
  void line(const std::string& text);  // a message of the program itself
  void end_bar();

 private:
  void show(const Progress& progress);
  void draw_bar(const Progress& progress);
  void plain_line(const Progress& progress);

  Verbosity verbosity_;
  bool is_terminal_ = false;
  bool bar_drawn_ = false;
  double last_drawn_ = -1;
  int64_t last_block_ = -1;
};

std::string format_seconds(double seconds);  // "0:07", "1:02:03"

}  // namespace gptq
