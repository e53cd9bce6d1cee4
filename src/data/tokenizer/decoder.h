// Decoders: token texts back to plain text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/budget.h"

namespace gptq {

class Decoder {
 public:
  virtual ~Decoder() = default;
  // The tokens after this step; after all steps, their concatenation is the text. Throws InputError if it exceeds its
  // budget.
  virtual std::vector<std::string> apply(std::vector<std::string> tokens, Budget& budget) const = 0;
};

// From tokenizer.json's "decoder", which may be null: then tokens are joined by spaces. Throws UnsupportedError with
// the name of an unsupported type.
std::unique_ptr<Decoder> make_decoder(const nlohmann::json& description);

}  // namespace gptq
