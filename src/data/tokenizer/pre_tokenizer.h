// Pre-tokenizers: split normalized text into words, which the model encodes one by one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/budget.h"

namespace gptq {

struct Piece {
  std::string_view text;
  bool starts_input;  // it is at the start of the input
};

// A piece's text is valid during the call only.
using PieceSink = std::function<void(Piece)>;

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Passes the words of `piece` to `sink` in order; none is empty. Throws InputError if a text exceeds its budget.
  virtual void split(Piece piece, Budget& budget, const PieceSink& sink) const = 0;
};

// From tokenizer.json's "pre_tokenizer", which may be null. Throws UnsupportedError with the name of an unsupported
// type.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const nlohmann::json& description);

// Appends `bytes` in the alphabet of byte-level BPE, which has a printable character for each byte.
void append_byte_characters(std::string& text, std::string_view bytes);
// The byte of a character of that alphabet, or -1.
int byte_of_character(char32_t character);

}  // namespace gptq
