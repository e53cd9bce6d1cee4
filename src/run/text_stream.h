// New tokens as pieces of text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "gptq/generate.h"

namespace gptq {

// Passes on whole characters only, and holds back what may be the start of a stop text.
class TextStream {
 public:
  // prompt: the tokens before the new ones, which decide whether a word starts with a blank. References must outlive
  // it.
  TextStream(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt, const std::vector<std::string>& stops,
             const OnText& on_text);

  // Returns false once a stop text has come; it and what follows are dropped.
  bool add(int32_t token);
  // Passes on the rest, with U+FFFD for a character that has not become whole.
  void finish();
  // All that has been passed on.
  const std::string& text() const { return text_; }

 private:
  std::string decoded(size_t first, size_t end) const;
  void decode_new();
  bool pass_on(bool is_last);

  const Tokenizer& tokenizer_;
  const std::vector<std::string>& stops_;
  const OnText& on_text_;
  std::vector<int32_t> tokens_;
  size_t context_ = 0, read_ = 0;  // tokens [context_, read_) are text already, and stand before those behind
  std::string held_, text_;
  bool is_stopped_ = false;
};

}  // namespace gptq
