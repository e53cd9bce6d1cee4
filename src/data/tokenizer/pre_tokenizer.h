// Pre-tokenizers: cut normalized text into the words that the model encodes one by one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

struct Piece {
  std::string_view text;
  bool starts_input;  // nothing of the input stands before it
};

// A piece's text lives only during the call.
using PieceSink = std::function<void(Piece)>;

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Hands the words of `piece` to `sink`, in order; never an empty one.
  virtual void split(Piece piece, const PieceSink& sink) const = 0;
};

// From tokenizer.json's "pre_tokenizer", null included. Throws UnsupportedError naming a type that is not known.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const nlohmann::json& description);

// Byte-level BPE writes each byte as one printable character; this appends those of `bytes`.
void append_byte_characters(std::string& text, std::string_view bytes);
// The byte that a character of that alphabet stands for, or -1.
int byte_of_character(char32_t character);

}  // namespace gptq
