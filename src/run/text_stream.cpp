#include "run/text_stream.h"

#include <algorithm>
#include <span>

namespace gptq {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// Bytes at the end of a text that a stop text may start with.
size_t held_bytes(std::string_view text, const std::vector<std::string>& stops) {
  size_t most = 0;
  for (const std::string& stop : stops) {
    for (size_t size = std::min(text.size(), stop.size() - 1); size > most; --size) {
      if (text.ends_with(std::string_view(stop).substr(0, size))) most = size;
    }
  }
  return most;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                       const std::vector<std::string>& stops, const OnText& on_text)
    : tokenizer_(tokenizer), stops_(stops), on_text_(on_text) {
  constexpr size_t kContext = 8;
  tokens_.assign(prompt.end() - static_cast<std::ptrdiff_t>(std::min(kContext, prompt.size())), prompt.end());
  read_ = tokens_.size();
}

std::string TextStream::decoded(size_t first, size_t end) const {
  return tokenizer_.decode(std::span(tokens_).subspan(first, end - first));
}

bool TextStream::add(int32_t token) {
  tokens_.push_back(token);
  const std::string whole = decoded(context_, tokens_.size());
  if (whole.ends_with(kReplacement)) return true;  // a character is not whole
  decode_new();
  return pass_on(false);
}

void TextStream::finish() {
  if (is_stopped_) return;
  decode_new();
  pass_on(true);
}

void TextStream::decode_new() {
  const std::string before = decoded(context_, read_), whole = decoded(context_, tokens_.size());
  if (whole.size() <= before.size()) return;
  held_ += whole.substr(before.size());
  context_ = read_;
  read_ = tokens_.size();
}

bool TextStream::pass_on(bool is_last) {
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  is_stopped_ = end != std::string::npos;
  if (!is_stopped_) end = held_.size() - (is_last ? 0 : held_bytes(held_, stops_));
  const std::string piece = held_.substr(0, end);
  held_.erase(0, end);
  text_ += piece;
  if (on_text_ && !piece.empty()) on_text_(piece);
  return !is_stopped_;
}

}  // namespace gptq
